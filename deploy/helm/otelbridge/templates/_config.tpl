{{/* otelbridge.yaml, the arguments of a Job's conversions, and the Collector's configuration. */}}

{{- define "otelbridge.config" -}}
{{- $config := include "otelbridge.over" (dict "defaults" (include "otelbridge.config.defaults" . | fromYaml) "given" .Values.config) | fromYaml -}}
{{- if not $config.inputs -}}
{{- fail "config.inputs is empty and nothing is followed: enable presets.libvirtLogs or presets.kubevirtLogs, or name inputs" -}}
{{- end -}}
{{- if not (or $config.destinations (eq (include "otelbridge.hasDestination" .) "true")) -}}
{{- fail "config.destinations is empty: say where it goes, for example {collector: {endpoint: \"http://collector:4318\"}}, or set collector.enabled, or OTEL_EXPORTER_OTLP_ENDPOINT in extraEnvs" -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "otelbridge.config.defaults" -}}
version: 1
inputs:
  {{- if eq .Values.mode "daemonset" }}
  {{- if .Values.presets.libvirtLogs.enabled }}
  - files: ["/var/log/libvirt/qemu/*.log"]
  {{- end }}
  {{- if .Values.presets.kubevirtLogs.enabled }}
  - files: ["/var/lib/kubelet/pods/*/volumes/kubernetes.io~empty-dir/private/libvirt/qemu/log/*.log"]
    name: <namespace>_<vmi>.log
  {{- end }}
  {{- else }}
  - files: [{{ printf "%s/**/*.log" .Values.logs.mountPath | quote }}]
  {{- end }}
{{- if .Values.collector.enabled }}
destinations:
  collector:
    endpoint: {{ include "otelbridge.collector.address" . }}
    signals: {{ include "otelbridge.collector.signals" . }}
{{- end }}
outbox:
  folder: /var/lib/otelbridge/outbox
{{- if eq .Values.mode "daemonset" }}
resource:
  host.name: ${env:OTEL_K8S_NODE_NAME:-}
  k8s.node.name: ${env:OTEL_K8S_NODE_NAME:-}
{{- else if eq .Values.mode "sidecar" }}
resource:
  k8s.namespace.name: ${env:OTEL_K8S_NAMESPACE:-}
  k8s.node.name: ${env:OTEL_K8S_NODE_NAME:-}
  k8s.pod.name: ${env:OTEL_K8S_POD_NAME:-}
{{- end }}
health:
  address: 0.0.0.0:{{ .Values.ports.health.containerPort }}
log:
  format: json
shutdown:
  grace: {{ sub .Values.terminationGracePeriodSeconds 5 }}s
{{- end -}}

{{/* The arguments of one conversion, one a line. Arguments: `conversion`, `root`. */}}
{{- define "otelbridge.conversion" -}}
{{- $values := .root.Values -}}
{{- $folder := $values.logs.mountPath -}}
convert
--give-up
{{ $values.job.giveUp }}
{{- range $values.job.to }}
--to
{{ . }}
{{- end }}
{{- if $values.persistence.existingClaim }}
--spool
/var/lib/otelbridge/{{ .root.Release.Name }}-{{ .index }}
{{- end }}
{{- range $values.job.extraArgs }}
{{ . }}
{{- end }}
{{- range .conversion.source }}
--source
{{ $folder }}/{{ . }}
{{- end }}
{{- range .conversion.destination }}
--destination
{{ $folder }}/{{ . }}
{{- end }}
{{- range .conversion.files }}
{{ $folder }}/{{ . }}
{{- end }}
{{- end -}}

{{- define "otelbridge.collector.address" -}}
http://{{ include "otelbridge.collector.fullname" . }}.{{ include "otelbridge.namespace" . }}.svc:4318
{{- end -}}

{{/* What the Collector has a pipeline for, so that nothing is sent there that it would refuse. */}}
{{- define "otelbridge.collector.signals" -}}
{{- $pipelines := get (get (include "otelbridge.collector.config" . | fromYaml) "service") "pipelines" -}}
{{- $signals := list -}}
{{- range $signal := list "traces" "metrics" -}}
{{- range $name, $pipeline := $pipelines -}}
{{- if eq $signal (splitList "/" $name | first) -}}
{{- $signals = append $signals $signal -}}
{{- end -}}
{{- end -}}
{{- end -}}
[{{ $signals | uniq | join ", " }}]
{{- end -}}

{{- define "otelbridge.collector.config" -}}
{{- $config := include "otelbridge.over" (dict "defaults" (include "otelbridge.collector.defaults" . | fromYaml) "given" .Values.collector.config) | fromYaml -}}
{{- if not $config.service.pipelines -}}
{{- fail "collector.exporters: none is enabled, so the Collector would pass nothing on; enable tempo, jaeger or prometheus, or write service.pipelines in collector.config" -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "otelbridge.collector.defaults" -}}
{{- $exporters := .Values.collector.exporters -}}
{{- $traces := list -}}
{{- $metrics := list -}}
{{- range $name := list "tempo" "jaeger" "prometheus" -}}
{{- if (get $exporters $name).enabled -}}
{{- $component := include "otelbridge.collector.component" (dict "name" $name "endpoint" (get $exporters $name).endpoint) -}}
{{- if eq $name "prometheus" -}}{{- $metrics = append $metrics $component -}}{{- else -}}{{- $traces = append $traces $component -}}{{- end -}}
{{- end -}}
{{- end -}}
extensions:
  health_check:
    endpoint: 0.0.0.0:13133
  file_storage:
    directory: /var/lib/otelcol/queue
    create_directory: true
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: 0.0.0.0:4317
      http:
        endpoint: 0.0.0.0:4318
processors:
  memory_limiter:
    check_interval: 1s
    limit_percentage: 80
    spike_limit_percentage: 25
exporters:
  {{- range $name := list "tempo" "jaeger" "prometheus" }}
  {{- with get $exporters $name }}
  {{- if .enabled }}
  {{ include "otelbridge.collector.component" (dict "name" $name "endpoint" .endpoint) }}:
    endpoint: {{ .endpoint | quote }}
    {{- with .tls }}
    tls:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .headers }}
    headers:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    retry_on_failure:
      max_elapsed_time: 0s
    sending_queue:
      storage: file_storage
      queue_size: {{ $.Values.collector.queueSize }}
      {{- if eq $name "prometheus" }}
      num_consumers: 1
      {{- else }}
      # Behind the queue on disk, where the batch processor would hold spans in memory alone.
      batch:
        flush_timeout: 1s
        sizer: items
        min_size: 2048
        max_size: 8192
      {{- end }}
  {{- end }}
  {{- end }}
  {{- end }}
service:
  extensions: [health_check, file_storage]
  telemetry:
    metrics:
      readers:
        - pull: {exporter: {prometheus: {host: 0.0.0.0, port: 8888}}}
  pipelines:
    {{- with $traces }}
    traces:
      receivers: [otlp]
      processors: [memory_limiter]
      exporters: {{ toJson . }}
    {{- end }}
    {{- with $metrics }}
    metrics:
      receivers: [otlp]
      processors: [memory_limiter]
      exporters: {{ toJson . }}
    {{- end }}
{{- end -}}

{{- define "otelbridge.collector.component" -}}
{{- ternary "otlp_http" "otlp_grpc" (regexMatch "^https?://" .endpoint) }}/{{ .name }}
{{- end -}}

{{/* The files of the ConfigMap. */}}
{{- define "otelbridge.configData" -}}
{{- if eq .Values.mode "job" -}}
{{- range $index, $conversion := .Values.job.conversions }}
conversion-{{ $index }}: |
  {{- include "otelbridge.conversion" (dict "root" $ "index" $index "conversion" $conversion) | trim | nindent 2 }}
{{- end }}
{{- else -}}
otelbridge.yaml: |
  {{- include "otelbridge.config" . | nindent 2 }}
{{- end -}}
{{- end -}}
