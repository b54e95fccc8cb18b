"""The local stack: real Kafka and MinIO as host processes, no Docker, no root."""
