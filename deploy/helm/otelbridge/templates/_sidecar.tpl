{{/*
otelbridge as a native sidecar in a pod of another chart, which has this chart as a dependency with `mode: sidecar`:

    initContainers:
      {{- include "otelbridge.sidecar" .Subcharts.otelbridge | nindent 8 }}
    volumes:
      {{- include "otelbridge.sidecar.volumes" .Subcharts.otelbridge | nindent 8 }}

It starts before the pod's containers, which wait for its startup probe, does not keep a Job from completing, and ends
after them, so that it reads their last line.
*/}}
{{- define "otelbridge.sidecar" -}}
{{- include "otelbridge.check" . -}}
{{- if ne .Values.mode "sidecar" -}}
{{- fail (printf "mode is %q: the template otelbridge.sidecar needs `mode: sidecar` in the values of this dependency" .Values.mode) -}}
{{- end -}}
- name: otelbridge
  restartPolicy: Always
  {{- include "otelbridge.container" . | nindent 2 }}
{{- end -}}

{{/* Its volumes, beside the one of `logs.volumeName`, which is the pod's own. */}}
{{- define "otelbridge.sidecar.volumes" -}}
{{ include "otelbridge.ownVolumes" . }}
{{ include "otelbridge.stateVolume" . }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
