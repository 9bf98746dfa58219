{{- define "dbbackup.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Release and chart name; 50 characters, so that suffixes fit. */}}
{{- define "dbbackup.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "dbbackup.selector" -}}
app.kubernetes.io/name: {{ include "dbbackup.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "dbbackup.labels" -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .Chart.Name (replace "+" "_" .Chart.Version) | trunc 63)
  "app.kubernetes.io/name" (include "dbbackup.name" .)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service -}}
{{- toYaml (merge $own .Values.commonLabels) -}}
{{- end -}}

{{/* An object's metadata below `name`: labels, and annotations where there are any. Takes {root, labels, annotations}. */}}
{{- define "dbbackup.metadata" -}}
labels:
  {{- $labels := merge (dict) (default dict .labels) (include "dbbackup.labels" .root | fromYaml) }}
  {{- toYaml $labels | nindent 2 }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "dbbackup.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "dbbackup.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "dbbackup.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Defaults of every Job, as JSON; what is empty is left out. */}}
{{- define "dbbackup.jobDefaults" -}}
{{- $job := dict -}}
{{- range $key, $value := .Values.job -}}
{{- if $value -}}{{- $_ := set $job $key $value -}}{{- end -}}
{{- end -}}
{{- if .Values.imagePullSecrets -}}{{- $_ := set $job "imagePullSecrets" .Values.imagePullSecrets -}}{{- end -}}
{{- toJson $job -}}
{{- end -}}

{{- define "dbbackup.console.selector" -}}
app.kubernetes.io/name: {{ include "dbbackup.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: console
{{- end -}}

{{- define "dbbackup.console.serviceAccount" -}}
{{- if .Values.console.serviceAccount.create -}}
{{- default (printf "%s-console" (include "dbbackup.fullname" .)) .Values.console.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.console.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The Secrets of `notifications`, as files <sink>/url and <sink>/key. A missing one does not stop the operator from starting: it reports it when it is needed. */}}
{{- define "dbbackup.notifications.sources" -}}
{{- $names := dict -}}
{{- range .Values.notifications -}}
{{- $sink := . -}}
{{- if hasKey $names .name }}{{ fail (printf "notifications: two have the name %s" .name) }}{{ end -}}
{{- $_ := set $names .name true -}}
{{- range $file, $field := dict "url" "urlSecretRef" "key" "secretRef" -}}
{{- with index $sink $field }}
- secret:
    name: {{ .name }}
    optional: true
    items: [{key: {{ .key | quote }}, path: {{ printf "%s/%s" $sink.name $file }}}]
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "dbbackup.notifications.mount" -}}
{{- if include "dbbackup.notifications.sources" . -}}
- name: notifications
  mountPath: /etc/dbbackup/notifications
  readOnly: true
{{- end -}}
{{- end -}}

{{- define "dbbackup.notifications.volume" -}}
{{- with include "dbbackup.notifications.sources" . -}}
- name: notifications
  projected:
    defaultMode: 0444
    sources:
      {{- . | nindent 6 }}
{{- end -}}
{{- end -}}
