"""`kubectl dbbackup`: the kubectl plugin. It talks to the API server through kubectl, and imports
what a verb needs when that runs."""
