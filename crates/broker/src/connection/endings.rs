//! How connections end: by silence, by a refusal, by one side's wish. Whoever is to go has only so long to do it.

use warren_amqp::frame;
use warren_amqp::method::connection;

use super::Connection;
use crate::engine::login::Login;
use crate::exception::Exception;

/// Seconds a client has to answer `connection.close`, or to take what it is sent last and go; less if its heartbeats
/// come faster. RabbitMQ's.
const CLOSE_S_MAX: u64 = 30;

impl Connection {
    /// Once a second: a sign of life for the client, and a look at the client's.
    pub(crate) fn tick(&self, clock: u64) {
        if self.deadline.is_some_and(|deadline| deadline <= clock) {
            return self.transport.abort_connection();
        }
        if self.heartbeat == 0 {
            return;
        }
        // The client may be silent for two intervals; one more second for the coarseness of the clock.
        if !self.blocked && self.read_at + 2 * self.heartbeat < clock {
            tracing::warn!(peer = %self.transport.peer(), "missed heartbeats from a client, timeout: {} s", self.heartbeat);
            return self.transport.abort_connection();
        }
        if clock.is_multiple_of(self.heartbeat.div_ceil(2)) {
            self.transport.write_with(frame::write_heartbeat);
        }
    }

    /// Ends the connection because nobody has logged in, in the way that the client understands.
    pub(crate) fn refuse_login(&mut self, exception: &Exception, clock: u64) {
        self.login = Login::Refused;
        if self.close_on_refusal {
            self.close(exception, 0, 0, clock);
        } else {
            self.transport.lose_connection();
        }
    }

    /// Asks the client to close, giving a reason. The rest of its input is ignored.
    pub(crate) fn close(
        &mut self,
        exception: &Exception,
        class_id: u16,
        method_id: u16,
        clock: u64,
    ) {
        if self.closing {
            return;
        }
        self.send(
            0,
            &connection::Close {
                reply_code: exception.code.0,
                reply_text: &exception.text,
                class_id,
                method_id,
            },
        );
        self.close_by(clock);
        if std::mem::take(&mut self.blocked) | std::mem::take(&mut self.awaits_answer) {
            // For the answer.
            self.transport.resume_reading();
        }
    }

    /// Answers a client that has closed the connection.
    pub(crate) fn finish(&mut self, clock: u64) {
        self.ending = false;
        self.send(0, &connection::CloseOk {});
        self.end(clock);
    }

    /// Everything has been said: ends the connection once the client has taken it, or has had the time for that.
    pub(crate) fn end(&mut self, clock: u64) {
        self.close_by(clock);
        self.transport.lose_connection();
    }

    /// From now on the client has only so long.
    pub(crate) fn close_by(&mut self, clock: u64) {
        let seconds = match self.heartbeat {
            0 => CLOSE_S_MAX,
            heartbeat => heartbeat.min(CLOSE_S_MAX),
        };
        // A second one is no longer time.
        self.deadline.get_or_insert(clock + seconds);
        self.closing = true;
    }
}
