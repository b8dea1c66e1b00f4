{{/* The variables of the container `operator`, without those of its user. */}}
{{- define "hybridjobs.operatorEnvironment" -}}
- name: HYBRIDJOBS_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "hybridjobs.databaseSecret" . }}
      key: url
- name: HYBRIDJOBS_NAMESPACE
  value: {{ include "hybridjobs.jobsNamespace" . | quote }}
- name: HYBRIDJOBS_LEASE_NAME
  value: {{ include "hybridjobs.fullname" . }}-operator
- name: HYBRIDJOBS_TYPES_DIR
  value: /etc/hybridjobs/types
- name: HYBRIDJOBS_TYPES_SELECTOR
  value: {{ include "hybridjobs.typesSelector" . | quote }}
- name: HYBRIDJOBS_WORKER_IMAGE
  value: {{ .Values.jobs.image | default (include "hybridjobs.image" .) }}
- name: HYBRIDJOBS_WORKER_IMAGE_PULL_POLICY
  value: {{ .Values.image.pullPolicy }}
- name: HYBRIDJOBS_WORKER_SERVICE_ACCOUNT
  value: {{ include "hybridjobs.fullname" . }}-worker
- name: HYBRIDJOBS_WORKER_API_URL
  value: http://{{ include "hybridjobs.fullname" . }}-worker.{{ .Release.Namespace }}.svc:8082
- name: HYBRIDJOBS_HANDLERS_DATABASE_SECRET
  value: {{ include "hybridjobs.databaseSecret" . }}
{{ include "hybridjobs.logEnv" . }}
{{- with .Values.tracing.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end }}
