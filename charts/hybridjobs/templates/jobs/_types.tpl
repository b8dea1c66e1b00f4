{{/* The HybridJobTypes of this release as files: name, then YAML text. */}}
{{- define "hybridjobs.types" }}
{{- $types := dict }}
{{- if .Values.types.github.enabled }}
{{- $types = include "hybridjobs.githubTypes" . | fromYaml }}
{{- end }}
{{- range $type, $spec := .Values.types.extra }}
{{- if hasKey $types $type }}
{{- fail (printf "types.extra: %s is one of types.github; set types.github.enabled=false to bring your own" $type) }}
{{- end }}
{{- $_ := set $types $type $spec }}
{{- end }}
{{- range $type, $spec := $types }}
{{- $name := $type | replace "/" "-" }}
{{ $name }}.yaml: |
  apiVersion: hybridjobs.dev/v1alpha1
  kind: HybridJobType
  metadata:
    name: {{ $name }}
    namespace: {{ include "hybridjobs.jobsNamespace" $ }}
    labels:
      app.kubernetes.io/managed-by: hybridjobs-chart
      app.kubernetes.io/instance: {{ $.Release.Name }}
  spec:
    {{- merge (dict "type" $type) $spec | toYaml | nindent 4 }}
{{- else }}
{}
{{- end }}
{{- end }}

{{/* Which types are of this release: the operator deletes those of them that are no longer here. */}}
{{- define "hybridjobs.typesSelector" -}}
app.kubernetes.io/managed-by=hybridjobs-chart,app.kubernetes.io/instance={{ .Release.Name }}
{{- end }}

{{/* What the handlers of the package need. The events are those that change what they store. */}}
{{- define "hybridjobs.githubTypes" -}}
capture/pr.details:
  mode: quick
  # GitHub gives up after 10 seconds; what is left is for the way there and back.
  budgetSeconds: 7
  deadlineSeconds: 900
  database: true
  events:
    - github/pull_request.opened
    - github/pull_request.synchronize
    - github/pull_request.edited
    - github/pull_request.closed
    - github/pull_request.reopened
    - github/pull_request.ready_for_review
    - github/pull_request.converted_to_draft
  concurrency:
    limit: 5
    key: repository.full_name
  {{- include "hybridjobs.githubTypeEnv" . | nindent 2 }}
capture/repository.sync:
  mode: long
  deadlineSeconds: 3600
  database: true
  # A repository that became ours to read, or got another name. Not github/push: the pull requests
  # that a push moves arrive by themselves, and a whole sync per push would be work for nothing.
  events:
    - github/repository.created
    - github/repository.renamed
    - github/repository.transferred
    - github/repository.publicized
    - github/repository.unarchived
  concurrency:
    limit: 5
    key: repository.full_name
  {{- include "hybridjobs.githubTypeEnv" . | nindent 2 }}
# Those that follow from a sync, which names the repository by its id here.
{{- range tuple "capture/issue.comments" "capture/pr.comments" "capture/pr.reviews" "capture/repository.issues" }}
{{ . }}:
  mode: long
  deadlineSeconds: {{ eq . "capture/repository.issues" | ternary 3600 900 }}
  database: true
  concurrency:
    limit: 5
    key: repositoryId
  {{- include "hybridjobs.githubTypeEnv" $ | nindent 2 }}
{{- end }}
{{- end }}

{{- define "hybridjobs.githubTypeEnv" -}}
env:
  - name: GITHUB_API_URL
    value: {{ .Values.github.apiUrl | quote }}
  - name: GITHUB_TOKEN
    valueFrom:
      secretKeyRef:
        name: {{ include "hybridjobs.githubSecret" . }}
        key: token
        optional: true
resources:
  requests:
    cpu: 100m
    memory: 128Mi
  limits:
    memory: 512Mi
{{- end }}
