{{- define "hybridjobs.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 43 | trimSuffix "-" }}
{{- end }}

{{/* At most 43 characters: "-postgres" and a hash of 11 follow in a label of 63. */}}
{{- define "hybridjobs.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 43 | trimSuffix "-" }}
{{- else if contains (include "hybridjobs.name" .) .Release.Name }}
{{- .Release.Name | trunc 43 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "hybridjobs.name" .) | trunc 43 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Of cluster-scoped objects: a release's name is its own within its namespace only. */}}
{{- define "hybridjobs.clusterName" -}}
{{ include "hybridjobs.fullname" . }}.{{ .Release.Namespace }}
{{- end }}

{{- define "hybridjobs.jobsNamespace" -}}
{{ .Values.jobs.namespace | default .Release.Namespace }}
{{- end }}

{{- define "hybridjobs.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "hybridjobs.labels" -}}
{{ include "hybridjobs.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "hybridjobs.selectorLabels" -}}
app.kubernetes.io/name: {{ include "hybridjobs.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "hybridjobs.databaseSecret" -}}
{{- if .Values.database.embedded -}}
{{ .Values.database.embeddedSecret | default (printf "%s-database" (include "hybridjobs.fullname" .)) }}
{{- else -}}
{{ .Values.database.existingSecret }}
{{- end }}
{{- end }}

{{- define "hybridjobs.apiSecret" -}}
{{ .Values.api.existingSecret | default (printf "%s-api" (include "hybridjobs.fullname" .)) }}
{{- end }}

{{- define "hybridjobs.githubWebhookSecret" -}}
{{ .Values.webhooks.github.existingSecret | default (printf "%s-github-webhook" (include "hybridjobs.fullname" .)) }}
{{- end }}

{{- define "hybridjobs.inngestSecret" -}}
{{ .Values.webhooks.inngest.existingSecret | default (printf "%s-inngest" (include "hybridjobs.fullname" .)) }}
{{- end }}

{{- define "hybridjobs.standardWebhooksSecret" -}}
{{ .Values.webhooks.standard.existingSecret | default (printf "%s-standard-webhooks" (include "hybridjobs.fullname" .)) }}
{{- end }}

{{- define "hybridjobs.cloudeventsSecret" -}}
{{ .Values.webhooks.cloudevents.existingSecret | default (printf "%s-cloudevents" (include "hybridjobs.fullname" .)) }}
{{- end }}

{{- define "hybridjobs.callbacksSecret" -}}
{{ .Values.callbacks.existingSecret | default (printf "%s-callbacks" (include "hybridjobs.fullname" .)) }}
{{- end }}

{{- define "hybridjobs.githubSecret" -}}
{{ .Values.github.existingSecret | default (printf "%s-github" (include "hybridjobs.fullname" .)) }}
{{- end }}

{{/* A value of a Secret of ours: what it has now, else a new one. Arguments: context, namespace,
name, key. `helm template` sees no cluster and always makes a new one. */}}
{{- define "hybridjobs.keptOrNew" -}}
{{- $found := lookup "v1" "Secret" .namespace .name }}
{{- with dig "data" .key "" ($found | default dict) }}
{{- . | b64dec }}
{{- else }}
{{- randAlphaNum 40 }}
{{- end }}
{{- end }}

{{- define "hybridjobs.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "hybridjobs.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* One pod of a component at a time may be drained. Arguments: the root, the component. */}}
{{- define "hybridjobs.disruptionBudget" -}}
{{- $root := first . }}
{{- $component := last . -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "hybridjobs.fullname" $root }}-{{ $component }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "hybridjobs.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $component }}
spec:
  maxUnavailable: 1
  # While the database is away none is ready, and nothing would be drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "hybridjobs.selectorLabels" $root | nindent 6 }}
      app.kubernetes.io/component: {{ $component }}
{{- end }}

{{/* A NetworkPolicy up to its rules; and the peer that is a component. Arguments as above. */}}
{{- define "hybridjobs.networkPolicy" }}
{{- $root := first . }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "hybridjobs.fullname" $root }}-{{ last . }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "hybridjobs.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ last . }}
spec:
  podSelector:
    matchLabels:
      {{- include "hybridjobs.selectorLabels" $root | nindent 6 }}
      app.kubernetes.io/component: {{ last . }}
  policyTypes: [Ingress, Egress]
{{- end }}

{{- define "hybridjobs.peer" -}}
{{- $root := first . -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ $root.Release.Namespace | quote }}
  podSelector:
    matchLabels:
      {{- include "hybridjobs.selectorLabels" $root | nindent 6 }}
      app.kubernetes.io/component: {{ last . }}
{{- end }}

{{/* A component's pods on several machines, where there are some. Arguments as above. */}}
{{- define "hybridjobs.spread" -}}
{{- $root := first . }}
{{- $component := last . }}
{{- if not (get $root.Values $component).topologySpreadConstraints -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "hybridjobs.selectorLabels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ $component }}
{{- end }}
{{- end }}

{{/* Where the scheduler may put a component's pods. Argument: the component's values. */}}
{{- define "hybridjobs.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "hybridjobs.logEnv" -}}
- name: HYBRIDJOBS_LOG_LEVEL
  value: {{ .Values.log.level }}
- name: HYBRIDJOBS_LOG_FORMAT
  value: {{ .Values.log.format }}
{{- end }}

{{/* Brings the schema up to date before the program starts; several may do so at once. Arguments:
the root, the volume mounts of the component's user. */}}
{{- define "hybridjobs.migrate" -}}
{{- $mounts := last . }}
{{- with first . -}}
name: migrate
image: {{ include "hybridjobs.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [migrate, --wait, "120"]
env:
  - name: HYBRIDJOBS_DATABASE_URL
    valueFrom:
      secretKeyRef:
        name: {{ include "hybridjobs.databaseSecret" . }}
        key: url
  - name: HYBRIDJOBS_MIGRATE_URL
    valueFrom:
      secretKeyRef:
        name: {{ include "hybridjobs.databaseSecret" . }}
        key: migrateUrl
        optional: true
  - name: HYBRIDJOBS_HANDLERS_DATABASE_URL
    valueFrom:
      secretKeyRef:
        name: {{ include "hybridjobs.databaseSecret" . }}
        key: handlersUrl
  {{- include "hybridjobs.logEnv" . | nindent 2 }}
resources:
  requests:
    cpu: 50m
    memory: 96Mi
  limits:
    memory: 256Mi
securityContext:
  {{- include "hybridjobs.securityContext" . | nindent 2 }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  {{- with $mounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* A container's variables. Of two with one name the API server takes one or refuses both.
Arguments: ours as YAML text, the user's list, the value that it stands in. */}}
{{- define "hybridjobs.environment" -}}
{{- $ours := index . 0 }}
{{- $names := list }}
{{- range concat ($ours | fromYamlArray) (index . 1) }}
{{- if has .name $names }}
{{- fail (printf "%s is set twice: %s may not repeat itself, nor what ingress.childEnv or another value sets" .name (index $ 2)) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- $ours }}
{{- with index . 1 }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "hybridjobs.probes" -}}
startupProbe:
  httpGet:
    path: /healthz
    port: health
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /healthz
    port: health
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: health
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}

{{/* The API server's credentials, by a volume of our own: only the container that calls it mounts
them, and the migration does not. */}}
{{- define "hybridjobs.apiCredentialsVolume" -}}
name: kube-api
projected:
  defaultMode: 0440
  sources:
    - serviceAccountToken:
        path: token
        expirationSeconds: 3607
    - configMap:
        name: kube-root-ca.crt
        items:
          - key: ca.crt
            path: ca.crt
    - downwardAPI:
        items:
          - path: namespace
            fieldRef:
              fieldPath: metadata.namespace
{{- end }}

{{- define "hybridjobs.apiCredentialsMount" -}}
name: kube-api
mountPath: /var/run/secrets/kubernetes.io/serviceaccount
readOnly: true
{{- end }}

{{/* What a release cannot be without, said before anything is created. */}}
{{- define "hybridjobs.check" -}}
{{- $fullname := include "hybridjobs.fullname" . }}
{{- if not (regexMatch "^[a-z][a-z0-9-]*$" $fullname) }}
{{- fail (printf "%s cannot begin the name of a Service, which has letters, digits and - and begins with a letter: set fullnameOverride" $fullname) }}
{{- end }}
{{- with .Values.ingress.autoscaling }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
{{- fail "ingress.autoscaling.minReplicas is over ingress.autoscaling.maxReplicas" }}
{{- end }}
{{- $resources := $.Values.ingress.resources }}
{{- if and .enabled (not (or (dig "requests" "cpu" "" $resources) (dig "limits" "cpu" "" $resources))) }}
{{- fail "ingress.autoscaling compares the use of the CPU with ingress.resources.requests.cpu, which is missing" }}
{{- end }}
{{- end }}
{{- range $where, $given := merge (dict "callbacks" .Values.callbacks) (pick .Values.webhooks "github" "standard" "cloudevents" "inngest") }}
{{- if $given.existingSecret }}
{{- range list "secret" "secrets" "token" "signingKey" "signingKeyFallback" "eventKey" }}
{{- if get $given . }}
{{- fail (printf "existingSecret and %s of %s exclude each other: the Secret takes its place" . $where) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.database.embedded .Values.database.existingSecret }}
{{- fail "database.existingSecret is for a database of your own: set database.embedded=false with it (for the embedded server's own passwords there is database.embeddedSecret)" }}
{{- end }}
{{- if not (or .Values.database.embedded .Values.database.existingSecret) }}
{{- fail "choose a database: database.existingSecret=NAME (a Secret with the keys url, migrateUrl and handlersUrl), or database.embedded=true (a one-pod Postgres, to try it)" }}
{{- end }}
{{- if and .Values.webhooks.ingress.enabled (not .Values.webhooks.ingress.host) }}
{{- fail "webhooks.ingress.host is needed with webhooks.ingress.enabled" }}
{{- end }}
{{- with .Values.webhooks.inngest }}
{{- if and .enabled (not (or .signingKey .existingSecret .dev)) }}
{{- fail "webhooks.inngest.signingKey or webhooks.inngest.existingSecret is needed with webhooks.inngest.enabled: Inngest shows the key as INNGEST_SIGNING_KEY" }}
{{- end }}
{{- end }}
{{- with .Values.github }}
{{- if and (not .existingSecret) (ne (empty .app.id) (empty .app.privateKey)) }}
{{- fail "github.app.id and github.app.privateKey go together: an App's id, and its private key in PEM form" }}
{{- end }}
{{- if and .existingSecret (or .token .app.id .app.privateKey) }}
{{- fail "github.existingSecret takes the place of github.token and github.app: its keys are token, appId and privateKey" }}
{{- end }}
{{- end }}
{{- with .Values.github.redelivery }}
{{- if and (or .appId .hooks) (not .existingSecret) }}
{{- fail "github.redelivery.existingSecret is needed: a Secret with the App's privateKey, and the token for the hooks" }}
{{- end }}
{{- end }}
{{- if and .Values.webhooks.httpRoute.enabled (not .Values.webhooks.httpRoute.parentRefs) }}
{{- fail "webhooks.httpRoute.parentRefs is needed with webhooks.httpRoute.enabled: the Gateway whose HTTPS listener serves it" }}
{{- end }}
{{- end }}

{{/* The port of a URL. */}}
{{- define "hybridjobs.portOf" -}}
{{- $url := urlParse . }}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) }}
{{- end }}
