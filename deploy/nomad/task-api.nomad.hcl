# Application and sidecar, with the images that releases publish. It needs Nomad 1.4 or later, for
# Nomad's own variables and services, and the docker driver. `memory_max` counts only where the
# scheduler allows memory oversubscription. First store the secrets:
#
#     nomad var put nomad/jobs/task-api postgres_password=… redis_auth=… sidecar_token=… \
#         api_token_hashes=…
#     nomad job run -var registry=ghcr.io/replace-me deploy/nomad/task-api.nomad.hcl

variable "registry" {
  type        = string
  description = "Where the images task-api-on-spin and kafka-sidecar are"
}

variable "release" {
  type    = string
  default = "0.1.0"
}

variable "postgres_address" {
  type        = string
  description = "The primary: host and port"
  default     = "postgres.replace-me.internal:5432"
}

variable "redis_address" {
  type    = string
  default = "redis.replace-me.internal:6379"
}

# The sidecar speaks neither TLS nor SASL.
variable "kafka_bootstrap_servers" {
  type    = string
  default = "kafka-0.replace-me.internal:9092,kafka-1.replace-me.internal:9092"
}

job "task-api" {
  type = "service"

  # One sidecar publishes, the other stands by.
  group "sidecar" {
    count = 2

    # The two are on different machines, so that one machine may fail.
    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    update {
      max_parallel = 1
      health_check = "checks"
    }

    network {
      port "push" {
        to = 3001
      }
      port "operations" {
        to = 3002
      }
    }

    service {
      name     = "kafka-sidecar"
      port     = "push"
      provider = "nomad"

      check {
        type     = "http"
        port     = "operations"
        path     = "/readyz"
        interval = "5s"
        timeout  = "5s"
      }
    }

    task "kafka-sidecar" {
      driver = "docker"
      user   = "65532:65532"
      # Longer than DRAIN_TIMEOUT_MS: on SIGTERM it publishes what is queued.
      kill_timeout = "30s"

      config {
        image           = "${var.registry}/kafka-sidecar:${var.release}"
        ports           = ["push", "operations"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
      }

      env {
        SIDECAR_LISTEN                 = "0.0.0.0:3001"
        SIDECAR_OPERATIONS_LISTEN      = "0.0.0.0:3002"
        KAFKA_BOOTSTRAP_SERVERS        = var.kafka_bootstrap_servers
        KAFKA_TOPIC                    = "task_events"
        KAFKA_TOPIC_REPLICATION_FACTOR = "3"
      }

      template {
        destination = "secrets/sidecar.env"
        env         = true
        data        = <<-END
          {{ with nomadVar "nomad/jobs/task-api" -}}
          SIDECAR_TOKEN={{ .sidecar_token }}
          DATABASE_URL=postgres://tasks:{{ .postgres_password }}@${var.postgres_address}/tasks
          REDIS_URL=redis://{{ .redis_auth }}${var.redis_address}
          {{- end }}
        END
      }

      resources {
        cpu        = 100
        memory     = 64
        memory_max = 128
      }
    }
  }

  group "application" {
    # Each opens up to 64 connections to PostgreSQL.
    count = 2

    update {
      max_parallel = 1
      health_check = "checks"
    }

    network {
      port "http" {
        to = 3000
      }
    }

    service {
      name     = "task-api"
      port     = "http"
      provider = "nomad"

      check {
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "5s"
      }
    }

    task "spin" {
      driver = "docker"
      user   = "65532:65532"
      # Spin drops requests on SIGTERM. Until then, the service has lost this task.
      shutdown_delay = "15s"

      config {
        image           = "${var.registry}/task-api-on-spin:${var.release}"
        ports           = ["http"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        args            = ["up", "--from", "/app/spin.toml", "--listen", "0.0.0.0:3000"]

        ulimit {
          nofile = "65536"
        }

        mount {
          type   = "tmpfs"
          target = "/tmp"

          tmpfs_options {
            size = 67108864
          }
        }
      }

      env {
        SPIN_VARIABLE_POSTGRES_ADDRESS = var.postgres_address
        SPIN_VARIABLE_REDIS_ADDRESS    = var.redis_address
      }

      # Another address of the sidecar starts the application anew. What it cannot push meanwhile is
      # in the outbox.
      template {
        destination = "secrets/application.env"
        env         = true
        data        = <<-END
          {{ with nomadVar "nomad/jobs/task-api" -}}
          SPIN_VARIABLE_POSTGRES_PASSWORD={{ .postgres_password }}
          SPIN_VARIABLE_REDIS_AUTH={{ .redis_auth }}
          SPIN_VARIABLE_SIDECAR_TOKEN={{ .sidecar_token }}
          SPIN_VARIABLE_API_TOKEN_HASHES={{ .api_token_hashes }}
          {{- end }}
          {{ range nomadService 1 (env "NOMAD_ALLOC_ID") "kafka-sidecar" -}}
          SPIN_VARIABLE_SIDECAR_ADDRESS={{ .Address }}:{{ .Port }}
          {{- end }}
        END
      }

      resources {
        cpu        = 250
        memory     = 256
        memory_max = 1024
      }
    }
  }
}
