{{/* One condition, after metav1.Condition. */}}
{{- define "hybridjobs.conditionSchema" -}}
type: object
required: [type, status, reason, lastTransitionTime]
properties:
  type:
    description: Its name.
    type: string
    maxLength: 64
    pattern: ^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$
  status:
    description: True, False or Unknown.
    type: string
    maxLength: 8
    enum: ["True", "False", Unknown]
  observedGeneration:
    description: The metadata.generation that it was set for.
    type: integer
    format: int64
    minimum: 0
  lastTransitionTime:
    description: When its status last changed.
    type: string
    format: date-time
    maxLength: 64
  reason:
    description: Why, in one CamelCase word.
    type: string
    minLength: 1
    maxLength: 128
    pattern: ^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$
  message:
    description: Why, for people.
    type: string
    maxLength: 32768
{{- end }}
