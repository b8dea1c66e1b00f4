{{/* The variables of the container `ingress`, without those of its user. */}}
{{- define "hybridjobs.ingressEnvironment" -}}
# Large bodies are read in threads, and glibc keeps an arena for each.
- name: MALLOC_ARENA_MAX
  value: "2"
- name: HYBRIDJOBS_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "hybridjobs.databaseSecret" . }}
      key: url
- name: HYBRIDJOBS_HANDLERS_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "hybridjobs.databaseSecret" . }}
      key: handlersUrl
- name: HYBRIDJOBS_NAMESPACE
  value: {{ include "hybridjobs.jobsNamespace" . | quote }}
- name: HYBRIDJOBS_WINDOW
  value: {{ .Values.jobs.window | quote }}
- name: HYBRIDJOBS_WORKER_SERVICE_ACCOUNT
  value: {{ include "hybridjobs.fullname" . }}-worker
- name: HYBRIDJOBS_INLINE_CHILDREN
  value: {{ .Values.ingress.inlineChildren | quote }}
- name: HYBRIDJOBS_INLINE_CHILD_MEMORY_BYTES
  value: {{ .Values.ingress.inlineChildMemoryBytes | int64 | quote }}
- name: HYBRIDJOBS_API_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ include "hybridjobs.apiSecret" . }}
      key: token
- name: HYBRIDJOBS_API_CLUSTER_TOKENS
  value: {{ .Values.api.clusterTokens.enabled | quote }}
- name: HYBRIDJOBS_API_AUDIENCES
  value: {{ join "," .Values.api.clusterTokens.audiences | quote }}
- name: HYBRIDJOBS_API_REQUESTS_PER_SECOND
  value: {{ .Values.api.requestsPerSecond | quote }}
- name: HYBRIDJOBS_MAX_WAIT_SECONDS
  value: {{ .Values.api.maxWaitSeconds | quote }}
- name: HYBRIDJOBS_WEBHOOK_REQUESTS_PER_SECOND
  value: {{ .Values.webhooks.requestsPerSecond | quote }}
{{- if .Values.webhooks.github.enabled }}
- name: HYBRIDJOBS_GITHUB_WEBHOOK_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ include "hybridjobs.githubWebhookSecret" . }}
      key: secret
{{- end }}
{{- with .Values.webhooks.inngest }}
{{- if .enabled }}
{{- range $variable, $key := dict "SIGNING_KEY" "signingKey" "SIGNING_KEY_FALLBACK" "signingKeyFallback" "EVENT_KEY" "eventKey" }}
- name: HYBRIDJOBS_INNGEST_{{ $variable }}
  valueFrom:
    secretKeyRef:
      name: {{ include "hybridjobs.inngestSecret" $ }}
      key: {{ $key }}
      {{- if or $.Values.webhooks.inngest.dev (ne $key "signingKey") }}
      optional: true
      {{- end }}
{{- end }}
- name: HYBRIDJOBS_INNGEST_APP_ID
  value: {{ .appId | quote }}
{{- range $variable, $value := dict "SERVE_ORIGIN" .serveOrigin "API_URL" .apiUrl "EVENT_URL" .eventUrl }}
{{- with $value }}
- name: HYBRIDJOBS_INNGEST_{{ $variable }}
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- if .dev }}
- name: HYBRIDJOBS_INNGEST_DEV
  value: "true"
{{- end }}
{{- end }}
{{- end }}
{{- if or .Values.webhooks.standard.secrets .Values.webhooks.standard.existingSecret }}
- name: HYBRIDJOBS_STANDARD_WEBHOOK_SECRETS
  valueFrom:
    secretKeyRef:
      name: {{ include "hybridjobs.standardWebhooksSecret" . }}
      key: secrets
{{- end }}
{{- if .Values.webhooks.cloudevents.enabled }}
- name: HYBRIDJOBS_CLOUDEVENTS_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ include "hybridjobs.cloudeventsSecret" . }}
      key: token
- name: HYBRIDJOBS_CLOUDEVENTS_ALLOWED_ORIGINS
  value: {{ join "," .Values.webhooks.cloudevents.allowedOrigins | quote }}
{{- end }}
- name: HYBRIDJOBS_CALLBACK_SECRETS_DIR
  value: /etc/hybridjobs/callbacks
{{- with .Values.callbacks.allow }}
- name: HYBRIDJOBS_CALLBACK_ALLOW
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.callbacks.private }}
- name: HYBRIDJOBS_CALLBACK_PRIVATE
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.github.redelivery }}
{{- if or .appId .hooks }}
- name: HYBRIDJOBS_GITHUB_API_URL
  value: {{ $.Values.github.apiUrl | quote }}
{{- end }}
{{- if .appId }}
- name: HYBRIDJOBS_GITHUB_APP_ID
  value: {{ .appId | quote }}
- name: HYBRIDJOBS_GITHUB_APP_PRIVATE_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: privateKey
{{- end }}
{{- if .hooks }}
- name: HYBRIDJOBS_GITHUB_HOOKS
  value: {{ join "," .hooks | quote }}
- name: HYBRIDJOBS_GITHUB_HOOKS_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: token
{{- end }}
{{- end }}
- name: HYBRIDJOBS_CHILD_ENV_GITHUB_API_URL
  value: {{ .Values.github.apiUrl | quote }}
{{- range $variable, $key := include "hybridjobs.githubCredentials" . | fromYaml }}
- name: HYBRIDJOBS_CHILD_ENV_{{ $variable }}
  valueFrom:
    secretKeyRef:
      name: {{ include "hybridjobs.githubSecret" $ }}
      key: {{ $key }}
      optional: true
{{- end }}
{{- range .Values.ingress.childEnv }}
- {{ toYaml (merge (dict "name" (printf "HYBRIDJOBS_CHILD_ENV_%s" .name)) .) | nindent 2 | trim }}
{{- end }}
{{ include "hybridjobs.logEnv" . }}
{{- with .Values.tracing.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
- name: HYBRIDJOBS_CHILD_ENV_OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end }}
