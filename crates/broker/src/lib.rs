//! A message broker that speaks AMQP 0-9-1. Nothing is here yet.
