{{/* The HybridJobTypes of this release, and the schedules of theirs, as files: name, then YAML text. */}}
{{- define "hybridjobs.types" }}
{{- $types := dict }}
{{- $schedules := dict }}
{{- if .Values.types.github.enabled }}
{{- range $type, $spec := include "hybridjobs.githubTypes" . | fromYaml }}
{{- $_ := set $types $type (merge $spec (include "hybridjobs.githubType" $ | fromYaml)) }}
{{- end }}
{{- $schedules = include "hybridjobs.githubSchedules" . | fromYaml }}
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
  {{- include "hybridjobs.file" (dict "context" $ "kind" "HybridJobType" "name" $name "spec" (merge (dict "type" $type) $spec)) | nindent 2 }}
{{- else }}
{}
{{- end }}
{{- range $name, $spec := $schedules }}
{{/* No type's file: their names have no underscore. */ -}}
schedule_{{ $name }}.yaml: |
  {{- include "hybridjobs.file" (dict "context" $ "kind" "HybridJobSchedule" "name" $name "spec" $spec) | nindent 2 }}
{{- end }}
{{- end }}

{{/* An object that the operator applies. Arguments: context, kind, name, spec. */}}
{{- define "hybridjobs.file" -}}
apiVersion: hybridjobs.dev/v1alpha1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  namespace: {{ include "hybridjobs.jobsNamespace" .context | quote }}
  labels:
    app.kubernetes.io/managed-by: hybridjobs-chart
    app.kubernetes.io/instance: {{ .context.Release.Name | quote }}
spec:
  {{- toYaml .spec | nindent 2 }}
{{- end }}

{{/* Which of them are of this release: the operator deletes those that are no longer here. */}}
{{- define "hybridjobs.typesSelector" -}}
app.kubernetes.io/managed-by=hybridjobs-chart,app.kubernetes.io/instance={{ .Release.Name }}
{{- end }}

{{/* What each of the package's handlers has of its own. The events are those that change what it stores. */}}
{{- define "hybridjobs.githubTypes" -}}
capture/issue.comments: {}
capture/pr.comments: {}
capture/pr.details:
  mode: quick
  # GitHub gives up after 10 seconds; what is left is for the way there and back.
  budgetSeconds: 7
  events:
    - github/pull_request.opened
    - github/pull_request.synchronize
    - github/pull_request.edited
    - github/pull_request.closed
    - github/pull_request.reopened
    - github/pull_request.ready_for_review
    - github/pull_request.converted_to_draft
capture/pr.details.graphql: {}
capture/pr.reviews: {}
capture/repository.issues:
  deadlineSeconds: 3600
capture/repository.sync:
  deadlineSeconds: 3600
  # A known repository with another name, or open to changes again. Not github/push: the pull requests
  # that a push moves arrive by themselves, and a whole sync per push would be work for nothing.
  events:
    - github/repository.renamed
    - github/repository.unarchived
capture/repository.sync.graphql:
  deadlineSeconds: 3600
classify/repository.single: {}
classify/repository.size: {}
discover/repository.new:
  # A repository that became ours to read.
  events:
    - github/repository.created
    - github/repository.publicized
    - github/repository.transferred
{{- end }}

{{/* What they have in common. */}}
{{- define "hybridjobs.githubType" -}}
mode: long
deadlineSeconds: 900
database: true
retry:
  limit: 3
concurrency:
  limit: 5
  # A delivery, a payload of people or jobs, and the id of a repository that is stored.
  key: repository.full_name | owner/repo | repositoryId
env:
  - name: GITHUB_API_URL
    value: {{ .Values.github.apiUrl | quote }}
  {{- range $variable, $key := include "hybridjobs.githubCredentials" . | fromYaml }}
  - name: {{ $variable }}
    valueFrom:
      secretKeyRef:
        name: {{ include "hybridjobs.githubSecret" $ }}
        key: {{ $key }}
        optional: true
  {{- end }}
resources:
  requests:
    cpu: 100m
    memory: 128Mi
  limits:
    memory: 512Mi
{{- end }}

{{/* What handlers ask GitHub with: the variable, and the Secret's key. */}}
{{- define "hybridjobs.githubCredentials" -}}
GITHUB_TOKEN: token
GITHUB_APP_ID: appId
GITHUB_APP_PRIVATE_KEY: privateKey
{{- end }}

{{- define "hybridjobs.githubSchedules" -}}
classify-repositories:
  # Not on the hour, when everybody asks GitHub.
  schedule: 17 */6 * * *
  type: classify/repository.size
  concurrencyPolicy: Forbid
{{- end }}
