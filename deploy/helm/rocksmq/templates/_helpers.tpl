{{- define "rocksmq.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 52 characters: a StatefulSet adds a hash of 10 to it in the label of its pods. */}}
{{- define "rocksmq.fullname" -}}
{{- $name := include "rocksmq.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "rocksmq.selector" -}}
app.kubernetes.io/name: {{ include "rocksmq.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rocksmq.labels" -}}
{{ include "rocksmq.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "rocksmq.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "rocksmq.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/*
What a pod needs, under what the user says. A pod's own loopback is reached by nobody else, so the broker listens on all of the
pod's addresses; as it has no TLS and no token yet, it wants to be told that this is meant. The NetworkPolicy says who reaches it.
*/}}
{{- define "rocksmq.config" -}}
{{- $pod := dict "data_dir" "/var/lib/rocksmq" "listen" "0.0.0.0:7660" "http" "0.0.0.0:7661" "insecure" true "log_format" "json" -}}
{{- range $key, $value := .Values.config }}{{ $_ := set $pod $key $value }}{{ end -}}
{{- toJson $pod -}}
{{- end }}

{{/* Helm reads every number as a float; a whole one is written as such, lest it becomes 1e+06, which is no whole number in TOML. */}}
{{- define "rocksmq.tomlValue" -}}
{{- if kindIs "string" . -}}
{{ toJson . }}
{{- else if kindIs "bool" . -}}
{{ . }}
{{- else if eq (floor .) (float64 .) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end }}
{{- end }}

{{- define "rocksmq.drainSeconds" -}}
{{- $config := include "rocksmq.config" . | fromJson -}}
{{ ($config.limits | default dict).drain_seconds | default 10 | ceil | int64 }}
{{- end }}
