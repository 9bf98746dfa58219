image:
	@tests/rig/operator-image.sh
.PHONY: image
