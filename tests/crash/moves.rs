//! Transactions: all of it or nothing.

use warren::amqp::BasicProperties;
use warren::amqp::client::{Error, Publish};

use crate::chance::{body, id_of};
use crate::ledger::Entry;
use crate::load::Flow;
use crate::places::place_of;

impl Flow {
    /// Publishes to two queues at once.
    pub(crate) fn transactions(&mut self) -> Result<(), Error> {
        let (_connection, channel) = self.open()?;
        channel.tx_select()?;
        loop {
            let mut ids = [Vec::new(), Vec::new()];
            let transaction = Some(self.chance.next());
            for _ in 0..2 + self.chance.below(10) {
                let queue = self.chance.below(2) as usize;
                let name = ["tx.0", "tx.1"][queue];
                let publisher = self.publisher;
                let entry = Entry { transaction, publisher, ..Entry::default() };
                let id = self.ledger.publish(&[name], entry);
                ids[queue].push(id);
                let to = Publish::to("", name);
                channel.basic_publish(to, &BasicProperties::persistent(), &body(id))?;
            }
            channel.tx_commit()?;
            self.ledger.confirm(&["tx.0"], &ids[0]);
            self.ledger.confirm(&["tx.1"], &ids[1]);
        }
    }

    /// Publishes to a queue, and moves what is there to another one and back: a message is in one of them.
    pub(crate) fn moves(&mut self) -> Result<(), Error> {
        let (_connection, channel) = self.open()?;
        channel.tx_select()?;
        let queues = place_of("moved").queues;
        loop {
            let mut ids = Vec::new();
            for _ in 0..self.chance.below(4) {
                let id = self.ledger.publish(&["moved"], Entry::default());
                let to = Publish::to("", queues[0]);
                channel.basic_publish(to, &BasicProperties::persistent(), &body(id))?;
                ids.push(id);
            }
            let from = self.chance.below(2) as usize;
            for _ in 0..self.chance.below(6) {
                let Some(got) = channel.basic_get(queues[from], false)? else { break };
                let Some(id) = id_of(&got.delivery.body) else {
                    let fault = "moved: the body of a message is damaged".to_owned();
                    self.faults.borrow_mut().push(fault);
                    continue;
                };
                let to = Publish::to("", queues[1 - from]);
                channel.basic_publish(to, &BasicProperties::persistent(), &body(id))?;
                got.delivery.ack()?;
            }
            if self.chance.one_in(5) {
                // What was to be published never was, and what was to be moved stays: it is held until the end.
                channel.tx_rollback()?;
                channel.basic_recover()?;
                channel.tx_commit()?;
                continue;
            }
            channel.tx_commit()?;
            self.ledger.confirm(&["moved"], &ids);
        }
    }
}
