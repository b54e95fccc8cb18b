"""The log, behind the ports of records.py: Kafka by faust or by kafka-python, and a twin in memory."""
