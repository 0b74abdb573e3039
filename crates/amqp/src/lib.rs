//! Warren's amqp.
