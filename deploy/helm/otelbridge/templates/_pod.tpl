{{/* Pods of all modes, and the container that they and the sidecar share. */}}

{{/* Whether the pod has to read what belongs to root alone. */}}
{{- define "otelbridge.asRoot" -}}
{{- and (eq .Values.mode "daemonset") .Values.presets.rootOnlyLogs.enabled -}}
{{- end -}}

{{- define "otelbridge.podSecurityContext" -}}
{{- $defaults := dict "runAsNonRoot" true "runAsUser" 10001 "runAsGroup" 10001 "fsGroup" 10001 "fsGroupChangePolicy" "OnRootMismatch" "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- if eq (include "otelbridge.asRoot" .) "true" -}}
{{- $defaults = dict "runAsNonRoot" false "runAsUser" 0 "runAsGroup" 0 "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- end -}}
{{- include "otelbridge.over" (dict "defaults" $defaults "given" .Values.podSecurityContext) -}}
{{- end -}}

{{- define "otelbridge.securityContext" -}}
{{- $defaults := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- if eq (include "otelbridge.asRoot" .) "true" -}}
{{- $_ := set $defaults.capabilities "add" (list "DAC_READ_SEARCH") -}}
{{- end -}}
{{- if eq .Values.mode "sidecar" -}}
{{- $_ := set $defaults "runAsNonRoot" true -}}
{{- $_ := set $defaults "runAsUser" 10001 -}}
{{- $_ := set $defaults "runAsGroup" 10001 -}}
{{- $_ := set $defaults "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- end -}}
{{- include "otelbridge.over" (dict "defaults" $defaults "given" .Values.securityContext) -}}
{{- end -}}

{{- define "otelbridge.environment" -}}
- name: OTEL_K8S_NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: OTEL_K8S_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: OTEL_K8S_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- if and (eq .Values.mode "job") .Values.collector.enabled }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ include "otelbridge.collector.address" . }}
{{- end }}
{{- with .Values.extraEnvs }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A probe of a page. Arguments: `path`, `defaults`, `given`. */}}
{{- define "otelbridge.probe" -}}
{{- include "otelbridge.over" (dict "defaults" (mustMergeOverwrite (dict "httpGet" (dict "path" .path "port" "health")) .defaults) "given" .given) -}}
{{- end -}}

{{/* The container of the service, without its name and restart policy. */}}
{{- define "otelbridge.container" -}}
image: {{ include "otelbridge.image" (dict "image" .Values.image "tag" .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if eq .Values.mode "job" }}
# The image's entry point takes fixed arguments; these depend on the index.
command:
  - python3
  - -c
  - |
    import os, pathlib, sys
    os.execvp("otelbridge", ["otelbridge", *pathlib.Path(sys.argv[1]).read_text().splitlines()])
  - /conf/conversion-$(JOB_COMPLETION_INDEX)
{{- else }}
args: [run, --config, /conf/otelbridge.yaml]
ports:
  - {name: health, containerPort: {{ .Values.ports.health.containerPort }}, protocol: TCP}
{{- end }}
env:
  {{- include "otelbridge.environment" . | nindent 2 }}
{{- with .Values.extraEnvsFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "otelbridge.securityContext" . | nindent 2 }}
{{- if ne .Values.mode "job" }}
startupProbe:
  {{- include "otelbridge.probe" (dict "path" "/healthz" "defaults" (dict "periodSeconds" 1 "failureThreshold" 60) "given" .Values.startupProbe) | nindent 2 }}
livenessProbe:
  {{- include "otelbridge.probe" (dict "path" "/healthz" "defaults" (dict "periodSeconds" 10 "timeoutSeconds" 5) "given" .Values.livenessProbe) | nindent 2 }}
readinessProbe:
  {{- include "otelbridge.probe" (dict "path" "/readyz" "defaults" (dict "periodSeconds" 10 "timeoutSeconds" 5) "given" .Values.readinessProbe) | nindent 2 }}
{{- end }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: {{ include "otelbridge.volumePrefix" . }}config, mountPath: /conf, readOnly: true}
  - {name: {{ include "otelbridge.volumePrefix" . }}state, mountPath: /var/lib/otelbridge}
  - {name: {{ include "otelbridge.volumePrefix" . }}tmp, mountPath: /tmp}
  {{- with include "otelbridge.logMounts" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if .Values.existingSecret.name }}
  - {name: {{ include "otelbridge.volumePrefix" . }}secret, mountPath: {{ .Values.existingSecret.mountPath | quote }}, readOnly: true}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* A sidecar's volumes are among those of somebody else's pod. */}}
{{- define "otelbridge.volumePrefix" -}}
{{- if eq .Values.mode "sidecar" }}otelbridge-{{ end -}}
{{- end -}}

{{- define "otelbridge.logMounts" }}
{{- if eq .Values.mode "daemonset" }}
{{- if .Values.presets.libvirtLogs.enabled }}
- {name: libvirt-logs, mountPath: /var/log/libvirt/qemu, readOnly: true}
{{- end }}
{{- if .Values.presets.kubevirtLogs.enabled }}
- {name: kubevirt-logs, mountPath: /var/lib/kubelet/pods, readOnly: true}
{{- end }}
{{- else }}
- {name: {{ eq .Values.mode "sidecar" | ternary .Values.logs.volumeName "logs" | quote }}, mountPath: {{ .Values.logs.mountPath | quote }}, readOnly: true}
{{- end -}}
{{- end -}}

{{/* Volumes that all modes have, the sidecar too. */}}
{{- define "otelbridge.ownVolumes" -}}
- name: {{ include "otelbridge.volumePrefix" . }}config
  configMap: {name: {{ include "otelbridge.configMapName" . | quote }}}
- name: {{ include "otelbridge.volumePrefix" . }}tmp
  emptyDir: {sizeLimit: 64Mi}
{{- with .Values.existingSecret.name }}
- name: {{ include "otelbridge.volumePrefix" $ }}secret
  secret: {secretName: {{ . | quote }}}
{{- end }}
{{- end -}}

{{- define "otelbridge.stateVolume" -}}
- name: {{ include "otelbridge.volumePrefix" . }}state
{{- $persistence := .Values.persistence }}
{{- if and $persistence.enabled (eq .Values.mode "daemonset") }}
  hostPath:
    path: {{ quote (default (printf "/var/lib/otelbridge/%s/%s" (include "otelbridge.namespace" .) (include "otelbridge.fullname" .)) $persistence.hostPath) }}
    type: DirectoryOrCreate
{{- else if and $persistence.enabled (eq .Values.mode "deployment") }}
  persistentVolumeClaim: {claimName: {{ default (include "otelbridge.fullname" .) $persistence.existingClaim | quote }}}
{{- else if and $persistence.existingClaim (eq .Values.mode "job") }}
  persistentVolumeClaim: {claimName: {{ $persistence.existingClaim | quote }}}
{{- else }}
  emptyDir: {sizeLimit: {{ $persistence.size | quote }}}
{{- end }}
{{- end -}}

{{- define "otelbridge.logVolumes" }}
{{- if eq .Values.mode "daemonset" }}
{{- /* The kubelet waits for a folder that is missing, and says so in the pod's events. */}}
{{- if .Values.presets.libvirtLogs.enabled }}
- name: libvirt-logs
  hostPath: {path: {{ .Values.presets.libvirtLogs.hostPath | quote }}, type: Directory}
{{- end }}
{{- if .Values.presets.kubevirtLogs.enabled }}
- name: kubevirt-logs
  hostPath: {path: {{ .Values.presets.kubevirtLogs.hostPath | quote }}, type: Directory}
{{- end }}
{{- else }}
- name: logs
  {{- toYaml .Values.logs.volume | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "otelbridge.podMetadata" -}}
labels:
  {{- include "otelbridge.selectorLabels" . | nindent 2 }}
  {{- with .Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: otelbridge
  {{- if and .Values.enableConfigChecksumAnnotation .Values.configMap.create }}
  checksum/config: {{ include "otelbridge.configData" . | sha256sum }}
  {{- end }}
  {{- with .Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "otelbridge.podSpec" -}}
serviceAccountName: {{ include "otelbridge.serviceAccountName" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "otelbridge.podSecurityContext" . | nindent 2 }}
{{- if .Values.hostNetwork }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
{{- if .Values.hostPID }}
hostPID: true
{{- end }}
{{- if eq .Values.mode "job" }}
# So that otelbridge is not process 1, which no SIGTERM ends.
shareProcessNamespace: true
restartPolicy: Never
{{- end }}
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
{{- with .Values.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: otelbridge
    {{- include "otelbridge.container" . | nindent 4 }}
  {{- with .Values.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  {{- include "otelbridge.ownVolumes" . | nindent 2 }}
  {{- include "otelbridge.stateVolume" . | nindent 2 }}
  {{- with include "otelbridge.logVolumes" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with include "otelbridge.placement" .Values | trim }}
{{- . | nindent 0 }}
{{- end }}
{{- if ne .Values.mode "daemonset" }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- include "otelbridge.spread" (dict "constraints" . "labels" (include "otelbridge.selectorLabels" $ | fromYaml)) | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}
