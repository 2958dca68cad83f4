{{/* Names, labels and small decisions that several templates share. */}}

{{- define "otelbridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/*
At most 42 characters: with `-collector` 52, since Kubernetes makes a label of 63 of a StatefulSet's name and a hash, and
room for the hash and the index of a Job's pods.
*/}}
{{- define "otelbridge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 42 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 42 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "otelbridge.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "otelbridge.selectorLabels" -}}
app.kubernetes.io/name: {{ include "otelbridge.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: {{ .Values.mode }}
{{- end -}}

{{- define "otelbridge.collector.selectorLabels" -}}
app.kubernetes.io/name: {{ include "otelbridge.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: collector
{{- end -}}

{{/* Labels that no selector looks at. */}}
{{- define "otelbridge.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: otelbridge
{{- with .Values.additionalLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "otelbridge.labels" -}}
{{ include "otelbridge.selectorLabels" . }}
{{ include "otelbridge.commonLabels" . }}
{{- end -}}

{{- define "otelbridge.collector.labels" -}}
{{ include "otelbridge.collector.selectorLabels" . }}
{{ include "otelbridge.commonLabels" . }}
{{- end -}}

{{- define "otelbridge.metadata" -}}
name: {{ include "otelbridge.fullname" . | quote }}
namespace: {{ include "otelbridge.namespace" . | quote }}
labels:
  {{- include "otelbridge.labels" . | nindent 2 }}
{{- end -}}

{{- define "otelbridge.collector.metadata" -}}
name: {{ include "otelbridge.collector.fullname" . }}
namespace: {{ include "otelbridge.namespace" . | quote }}
labels:
  {{- include "otelbridge.collector.labels" . | nindent 2 }}
{{- end -}}

{{- define "otelbridge.collector.fullname" -}}
{{- include "otelbridge.fullname" . }}-collector
{{- end -}}

{{- define "otelbridge.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "otelbridge.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "otelbridge.configMapName" -}}
{{- if .Values.configMap.create -}}
{{- include "otelbridge.fullname" . -}}
{{- else -}}
{{- required "configMap.existingName: with configMap.create=false, name the ConfigMap that has the key otelbridge.yaml" .Values.configMap.existingName -}}
{{- end -}}
{{- end -}}

{{/* Arguments: an `image` of the values, and the tag where it has none. */}}
{{- define "otelbridge.image" -}}
{{- $image := .image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .tag $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Two objects, the second over the first; what is null there is left out. As YAML. */}}
{{- define "otelbridge.over" -}}
{{- $merged := mustMergeOverwrite (deepCopy .defaults) (deepCopy .given) -}}
{{- include "otelbridge.prune" $merged -}}
{{- toYaml $merged -}}
{{- end -}}

{{- define "otelbridge.prune" -}}
{{- $object := . -}}
{{- range $key, $value := $object -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $object $key -}}
{{- else if kindIs "map" $value -}}
{{- include "otelbridge.prune" $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What cannot be told by the schema. Every mode's main template includes it. */}}
{{- define "otelbridge.check" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is empty: there is no public image; build deploy/image, push it, and name it here" -}}
{{- end -}}
{{- if eq .Values.mode "job" -}}
{{- if not .Values.job.conversions -}}
{{- fail "job.conversions is empty: name the logs, for example [{source: [a/vm.log], destination: [b/vm.log]}]" -}}
{{- end -}}
{{- if not (or .Values.job.to (eq (include "otelbridge.hasDestination" .) "true")) -}}
{{- fail "job.to is empty: say where it goes, for example [http://collector:4318], or set collector.enabled, or OTEL_EXPORTER_OTLP_ENDPOINT in extraEnvs" -}}
{{- end -}}
{{- end -}}
{{- if and (has .Values.mode (list "deployment" "job")) (not .Values.logs.volume) -}}
{{- fail (printf "logs.volume is empty: mode %s reads logs on a volume, for example {persistentVolumeClaim: {claimName: vm-logs, readOnly: true}}" .Values.mode) -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.service.enabled) -}}
{{- fail "serviceMonitor.enabled needs service.enabled: there would be no Service to monitor; set it, or take podMonitor.enabled" -}}
{{- end -}}
{{- end -}}

{{/* Whether the release itself says where it goes, apart from `config` and `job.to`. */}}
{{- define "otelbridge.hasDestination" -}}
{{- $found := or .Values.collector.enabled (not (empty .Values.extraEnvsFrom)) -}}
{{- range .Values.extraEnvs -}}
{{- if and (hasPrefix "OTEL_EXPORTER_OTLP_" .name) (hasSuffix "ENDPOINT" .name) -}}
{{- $found = true -}}
{{- end -}}
{{- end -}}
{{- $found -}}
{{- end -}}

{{/* Arguments: constraints, and the labels of the pods that they are for. */}}
{{- define "otelbridge.spread" -}}
{{- $labels := .labels -}}
{{- $constraints := list -}}
{{- range .constraints -}}
{{- $constraints = append $constraints (mustMergeOverwrite (dict "labelSelector" (dict "matchLabels" $labels)) (deepCopy .)) -}}
{{- end -}}
{{- toYaml $constraints -}}
{{- end -}}

{{/* Where pods are placed, for the values of otelbridge and of the Collector alike. */}}
{{- define "otelbridge.placement" -}}
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
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}
