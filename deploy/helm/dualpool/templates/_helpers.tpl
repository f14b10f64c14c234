{{/* Labels by which the pods are found: those of the policies that `dualpool config` writes too. */}}
{{- define "dualpool.selector" -}}
app.kubernetes.io/name: dualpool
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dualpool.labels" -}}
{{ include "dualpool.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "dualpool.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* The port of a setting HOST:PORT. */}}
{{- define "dualpool.port" -}}
{{ splitList ":" . | last }}
{{- end }}

{{- define "dualpool.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
# May read the keys.
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "dualpool.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
