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

{{- define "dualpool.valkeySelector" -}}
app.kubernetes.io/name: dualpool-valkey
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dualpool.valkeyFolder" -}}/etc/dualpool-valkey{{- end }}

{{- define "dualpool.stateFolder" -}}/var/lib/dualpool{{- end }}

{{/* The Secrets that a pod mounts, with their paths. */}}
{{- define "dualpool.secrets" -}}
{{- $secrets := .Values.secrets | default dict }}
{{- if .Values.valkey.enabled }}
{{- $secrets = merge (dict .Values.valkey.passwordSecret (include "dualpool.valkeyFolder" .)) $secrets }}
{{- end }}
{{- toYaml $secrets }}
{{- end }}

{{/* The settings, with the state that `valkey` or `persistence` gives them. */}}
{{- define "dualpool.settings" -}}
{{- $state := dict }}
{{- if .Values.valkey.enabled }}
{{- $state = dict
  "state" (printf "redis://%s-valkey.%s.svc.cluster.local:6379" .Release.Name .Release.Namespace)
  "state_password_file" (printf "%s/password" (include "dualpool.valkeyFolder" .)) }}
{{- end }}
{{- if .Values.persistence.enabled }}
{{- if .Values.valkey.enabled }}{{ fail "valkey.enabled and persistence.enabled: choose one" }}{{ end }}
{{- if or .Values.autoscaling.enabled (gt (int64 .Values.replicas) 1) }}
{{- fail "persistence.enabled: a state's file belongs to one service: set replicas to 1 and autoscaling.enabled to false, or use valkey.enabled" }}
{{- end }}
{{- $state = dict "state" (printf "file:%s/state" (include "dualpool.stateFolder" .)) }}
{{- end }}
{{- if and $state .Values.settings.state }}
{{- fail "settings.state: leave it out, as valkey.enabled and persistence.enabled set it" }}
{{- end }}
{{- toYaml (merge $state .Values.settings) }}
{{- end }}
