{{/* What the other templates share: names, labels, how a value is written, and the pod of all three kinds. */}}

{{- define "shishi.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "shishi.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "shishi.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "shishi.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "shishi.selectorLabels" -}}
app.kubernetes.io/name: {{ include "shishi.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "shishi.labels" -}}
{{ include "shishi.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "shishi.secretName" -}}
{{- default (include "shishi.fullname" .) .Values.existingSecret }}
{{- end }}

{{/* Whether there is any secret to hand over: its files lie where the collector looks for credentials. */}}
{{- define "shishi.hasCredentials" -}}
{{- if or .Values.existingSecret .Values.secrets .Values.tls.secretName }}yes{{ end }}
{{- end }}

{{- define "shishi.hasTls" -}}
{{- if or .Values.tls.secretName (hasKey .Values.secrets "tls-cert") }}yes{{ end }}
{{- end }}

{{/* A setting as the environment has it. YAML makes `off` and `on` of some writers false and true, and a
large number 1e+06. */}}
{{- define "shishi.value" -}}
{{- if kindIs "bool" . }}{{ ternary "on" "off" . }}
{{- else if kindIs "slice" . }}{{ join "," . }}
{{- else if or (kindIs "float64" .) (kindIs "int64" .) (kindIs "int" .) }}{{ int64 . }}
{{- else }}{{ . }}
{{- end }}
{{- end }}

{{/* A duration such as 1m30s in seconds, with a fraction. */}}
{{- define "shishi.seconds" -}}
{{- $sum := 0.0 }}
{{- range regexFindAll "[0-9.]+(ms|s|m|h|d)" (toString .) -1 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- $each := get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) $unit }}
{{- $sum = addf $sum (mulf (trimSuffix $unit . | float64) $each) }}
{{- end }}
{{- $sum }}
{{- end }}

{{/* How long a pod may take to end: the delay, the time to deliver, and some seconds more. */}}
{{- define "shishi.graceSeconds" -}}
{{- if .Values.terminationGracePeriodSeconds }}
{{- int64 .Values.terminationGracePeriodSeconds }}
{{- else }}
{{- $delay := include "shishi.seconds" (default .Values.defaults.drainDelay (get .Values.settings "drain-delay")) | float64 }}
{{- $deliver := include "shishi.seconds" (default .Values.defaults.shutdownTimeout (get .Values.settings "shutdown-timeout")) | float64 }}
{{- addf $delay $deliver 20.0 | ceil | int64 }}
{{- end }}
{{- end }}

{{- define "shishi.probe" -}}
httpGet:
  path: {{ .path }}
  port: http
  scheme: {{ ternary "HTTPS" "HTTP" (not (empty (include "shishi.hasTls" .root))) }}
{{- end }}

{{- define "shishi.pod" -}}
metadata:
  labels:
    {{- include "shishi.selectorLabels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/secret: {{ toYaml .Values.secrets | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  {{- with .Values.serviceAccountName }}
  serviceAccountName: {{ . }}
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ include "shishi.graceSeconds" . }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  containers:
    - name: shishi
      image: {{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      ports:
        - name: http
          containerPort: {{ .Values.port }}
          {{- if and (eq .Values.kind "DaemonSet") .Values.hostPort }}
          hostPort: {{ .Values.hostPort }}
          {{- end }}
        {{- with .Values.adminPort }}
        - name: admin
          containerPort: {{ . }}
        {{- end }}
      env:
        - name: SHISHI_LISTEN
          value: {{ printf ":%v" (int64 .Values.port) | quote }}
        {{- with .Values.adminPort }}
        - name: SHISHI_ADMIN_LISTEN
          value: {{ printf ":%v" (int64 .) | quote }}
        {{- end }}
        - name: SHISHI_DATA_DIR
          value: /data
        # The name of a pod of a StatefulSet stays, and so what it is called in metrics and on NATS.
        {{- if not (hasKey .Values.settings "id") }}
        - name: SHISHI_ID
          valueFrom:
            fieldRef:
              fieldPath: {{ ternary "spec.nodeName" "metadata.name" (eq .Values.kind "DaemonSet") }}
        {{- end }}
        {{- if include "shishi.hasCredentials" . }}
        - name: CREDENTIALS_DIRECTORY
          value: /credentials
        {{- end }}
        {{- range $name, $value := .Values.settings }}
        {{- if not (kindIs "invalid" $value) }}
        - name: SHISHI_{{ $name | upper | replace "-" "_" }}
          value: {{ include "shishi.value" $value | quote }}
        {{- end }}
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      readinessProbe:
        {{- include "shishi.probe" (dict "path" .Values.readinessPath "root" .) | nindent 8 }}
        {{- toYaml .Values.readinessProbe | nindent 8 }}
      livenessProbe:
        {{- include "shishi.probe" (dict "path" "/healthz" "root" .) | nindent 8 }}
        {{- toYaml .Values.livenessProbe | nindent 8 }}
      {{- with .Values.lifecycle }}
      lifecycle:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: data
          mountPath: /data
        {{- if include "shishi.hasCredentials" . }}
        - name: credentials
          mountPath: /credentials
          readOnly: true
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- if eq .Values.kind "Deployment" }}
    - name: data
      emptyDir:
        sizeLimit: {{ .Values.persistence.size }}
    {{- else if eq .Values.kind "DaemonSet" }}
    - name: data
      {{- if .Values.persistence.hostPath }}
      hostPath:
        path: {{ .Values.persistence.hostPath }}
        type: Directory
      {{- else }}
      emptyDir:
        sizeLimit: {{ .Values.persistence.size }}
      {{- end }}
    {{- end }}
    {{- if include "shishi.hasCredentials" . }}
    - name: credentials
      projected:
        defaultMode: 0440
        sources:
          {{- if or .Values.existingSecret .Values.secrets }}
          - secret:
              name: {{ include "shishi.secretName" . }}
          {{- end }}
          {{- with .Values.tls.secretName }}
          - secret:
              name: {{ . }}
              items:
                - key: tls.crt
                  path: tls-cert
                - key: tls.key
                  path: tls-key
          {{- end }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
