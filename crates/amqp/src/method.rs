//! Every method of AMQP 0-9-1 and RabbitMQ's additions, declared once.
//!
//! One table at the end of this file has a row per method: number, name, fields. From it come the structs
//! in the modules named after the classes, the [`Method`] enumeration, decoding, encoding, names, and
//! the tests' samples.
//!
//! ```text
//! | class u16 | method u16 | fields in order; neighbouring bits share octets, lowest first |
//! ```
//! Decoding borrows from the frame. The reserved fields of the specification (tickets, known hosts, ...)
//! are read over and written as zero. Bytes left over after the last field are an error, as in RabbitMQ.

use crate::constants::CLASS_BASIC;
use crate::error::{DecodeError, EncodeError, Fault};
use crate::value::FieldTable;
use crate::wire::{Field, Reader, Writer};

#[cfg(test)]
mod tests;

/// What there is to know about a method beside its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodInfo {
    /// The class, such as 60 for `basic`.
    pub class_id: u16,
    /// The method within its class.
    pub method_id: u16,
    /// The name as RabbitMQ prints it, such as `basic.publish`.
    pub name: &'static str,
}

/// Something that is written as a method: one of the structs here, or [`Method`].
pub trait EncodeMethod {
    /// Class, number and name.
    fn info(&self) -> MethodInfo;

    /// Appends class, number and fields, which is the payload of a method frame. Short strings over 255
    /// bytes are cut at a character; see [`check`](Self::check).
    fn encode(&self, out: &mut Vec<u8>);

    /// Do all short strings fit?
    ///
    /// # Errors
    /// [`EncodeError::ShortStringTooLong`] for the first that does not.
    fn check(&self) -> Result<(), EncodeError>;

    /// Is the method followed by a content header and body?
    fn has_content(&self) -> bool {
        let info = self.info();
        info.class_id == CLASS_BASIC && matches!(info.method_id, 40 | 50 | 60 | 71)
    }
}

/// The name of a method by its numbers, as RabbitMQ prints it; `None` if there is none.
pub fn method_name(class_id: u16, method_id: u16) -> Option<&'static str> {
    METHODS
        .iter()
        .find(|info| (info.class_id, info.method_id) == (class_id, method_id))
        .map(|info| info.name)
}

impl<'a> Method<'a> {
    /// Reads the payload of a method frame.
    ///
    /// # Errors
    /// [`DecodeError`] naming the method and the field; [`DecodeError::reply_code`] is what to close with.
    #[inline]
    pub fn decode(payload: &'a [u8]) -> Result<Method<'a>, DecodeError> {
        let mut reader = Reader::new(payload, "method");
        let class_id = reader.u16("class id")?;
        let method_id = reader.u16("method id")?;
        Self::decode_fields(class_id, method_id, &payload[4..])
    }

    /// The class, such as 60 for `basic`.
    pub fn class_id(&self) -> u16 {
        self.info().class_id
    }

    /// The method's number within its class.
    pub fn method_id(&self) -> u16 {
        self.info().method_id
    }

    /// The name as RabbitMQ prints it, such as `basic.publish`.
    pub fn name(&self) -> &'static str {
        self.info().name
    }

    /// Appends class, number and fields. Short strings over 255 bytes are cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        EncodeMethod::encode(self, out);
    }

    /// Is the method followed by a content header and body?
    pub fn has_content(&self) -> bool {
        EncodeMethod::has_content(self)
    }
}

/// From rows `Variant => Struct = number "name" [reserved before] { fields } [reserved after]` to all
/// that is derived from them.
macro_rules! methods {
    ($(
        $(#[$class_doc:meta])*
        $module:ident = $class:literal {
            $(
                $(#[$doc:meta])*
                $variant:ident => $name:ident $(<$lt:lifetime>)? = $id:literal $text:literal
                [$($before:ty)?] {
                    $( $(#[$field_doc:meta])* $field:ident : $ty:ty, )*
                } [$($after:ty)?]
            )*
        }
    )*) => {
        $(
            $(#[$class_doc])*
            pub mod $module {
                use super::*;
                $(
                    $(#[$doc])*
                    #[derive(Debug, Clone, PartialEq, Default)]
                    pub struct $name<$($lt)?> {
                        $( $(#[$field_doc])* pub $field: $ty, )*
                    }

                    impl<$($lt)?> $name<$($lt)?> {
                        /// Class, number and name.
                        pub const INFO: MethodInfo =
                            MethodInfo { class_id: $class, method_id: $id, name: $text };

                        #[inline]
                        #[allow(unused_mut, elided_lifetimes_in_paths)]
                        pub(super) fn read(
                            mut reader: Reader<$($lt)?>,
                        ) -> Result<Self, DecodeError> {
                            $( <$before as Field<'_>>::read(&mut reader, "reserved")?; )?
                            let method = $name {
                                $( $field: Field::read(&mut reader, stringify!($field))?, )*
                            };
                            $( <$after as Field<'_>>::read(&mut reader, "reserved")?; )?
                            reader.finish()?;
                            Ok(method)
                        }
                    }

                    impl<$($lt)?> EncodeMethod for $name<$($lt)?> {
                        #[inline]
                        fn info(&self) -> MethodInfo {
                            Self::INFO
                        }

                        #[inline]
                        fn encode(&self, out: &mut Vec<u8>) {
                            let mut writer = Writer::new(out);
                            writer.raw(&const {
                                let [a, b] = u16::to_be_bytes($class);
                                let [c, d] = u16::to_be_bytes($id);
                                [a, b, c, d]
                            });
                            $( Field::write(&<$before>::default(), &mut writer); )?
                            $( Field::write(&self.$field, &mut writer); )*
                            $( Field::write(&<$after>::default(), &mut writer); )?
                            writer.flush_bits();
                        }

                        fn check(&self) -> Result<(), EncodeError> {
                            $( Field::check(&self.$field, $text, stringify!($field))?; )*
                            Ok(())
                        }
                    }

                    impl<'a> From<$name<$($lt)?>> for Method<'a> {
                        fn from(method: $name<$($lt)?>) -> Method<'a> {
                            Method::$variant(method)
                        }
                    }
                )*
            }
        )*

        /// Any method.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)] // the variants are described at their structs
        pub enum Method<'a> {
            $($( $variant($module::$name<$($lt)?>), )*)*
        }

        /// Every method, in the order of the specification.
        pub const METHODS: &[MethodInfo] = &[ $($( $module::$name::INFO, )*)* ];

        impl<'a> Method<'a> {
            #[inline]
            fn decode_fields(
                class_id: u16,
                method_id: u16,
                fields: &'a [u8],
            ) -> Result<Method<'a>, DecodeError> {
                Ok(match (class_id, method_id) {
                    $($(
                        ($class, $id) => Method::$variant(
                            $module::$name::read(Reader::new(fields, $text))?
                        ),
                    )*)*
                    _ => return Err(DecodeError {
                        within: "method",
                        field: "ids",
                        fault: Fault::UnknownMethod { class_id, method_id },
                    }),
                })
            }
        }

        impl EncodeMethod for Method<'_> {
            fn info(&self) -> MethodInfo {
                match self { $($( Method::$variant(method) => method.info(), )*)* }
            }

            fn encode(&self, out: &mut Vec<u8>) {
                match self { $($( Method::$variant(method) => method.encode(out), )*)* }
            }

            fn check(&self) -> Result<(), EncodeError> {
                match self { $($( Method::$variant(method) => method.check(), )*)* }
            }
        }

        /// One sample of each method, its fields made up by `sampler`.
        #[cfg(test)]
        fn samples(sampler: &mut tests::Sampler) -> Vec<Method<'static>> {
            vec![ $($(
                Method::$variant($module::$name {
                    $( $field: tests::Sample::sample(sampler), )*
                }),
            )*)* ]
        }
    };
}

methods! {
    /// Class 10: the connection as a whole; on channel 0.
    connection = 10 {
        /// The server's greeting: what it is and which ways of authentication it has.
        ConnectionStart => Start<'a> = 10 "connection.start" [] {
            /// 0 for AMQP 0-9-1.
            version_major: u8,
            /// 9 for AMQP 0-9-1.
            version_minor: u8,
            /// Product, version, capabilities.
            server_properties: FieldTable,
            /// Names separated by spaces, such as `PLAIN AMQPLAIN`.
            mechanisms: &'a [u8],
            /// Names separated by spaces, such as `en_US`.
            locales: &'a [u8],
        } []
        /// The client's choice and credentials.
        ConnectionStartOk => StartOk<'a> = 11 "connection.start-ok" [] {
            /// Product, version, capabilities.
            client_properties: FieldTable,
            /// One of those offered.
            mechanism: &'a str,
            /// The credentials in the mechanism's form.
            response: &'a [u8],
            /// One of those offered.
            locale: &'a str,
        } []
        /// A question of a mechanism that takes more than one step.
        ConnectionSecure => Secure<'a> = 20 "connection.secure" [] {
            /// The mechanism's data.
            challenge: &'a [u8],
        } []
        /// The answer to it.
        ConnectionSecureOk => SecureOk<'a> = 21 "connection.secure-ok" [] {
            /// The mechanism's data.
            response: &'a [u8],
        } []
        /// The server's proposal of limits.
        ConnectionTune => Tune = 30 "connection.tune" [] {
            /// The highest channel number; 0: no limit.
            channel_max: u16,
            /// The largest frame in octets, its 8 octets of overhead included; 0: no limit.
            frame_max: u32,
            /// Seconds; 0: none.
            heartbeat: u16,
        } []
        /// The limits as the client takes them.
        ConnectionTuneOk => TuneOk = 31 "connection.tune-ok" [] {
            /// The highest channel number; 0: no limit.
            channel_max: u16,
            /// The largest frame in octets, its 8 octets of overhead included; 0: no limit.
            frame_max: u32,
            /// Seconds; 0: none.
            heartbeat: u16,
        } []
        /// Which virtual host the client wants.
        ConnectionOpen => Open<'a> = 40 "connection.open" [] {
            /// The virtual host, `/` by default.
            virtual_host: &'a str,
        } [crate::method::OpenReserved<'_>]
        /// The connection is ready.
        ConnectionOpenOk => OpenOk = 41 "connection.open-ok" [] {} [&str]
        /// The end of the connection, with the reason.
        ConnectionClose => Close<'a> = 50 "connection.close" [] {
            /// See [`ReplyCode`](crate::ReplyCode).
            reply_code: u16,
            /// For people.
            reply_text: &'a str,
            /// The class of the method that was at fault, or 0.
            class_id: u16,
            /// The method that was at fault, or 0.
            method_id: u16,
        } []
        /// Confirms the end; the last frame sent.
        ConnectionCloseOk => CloseOk = 51 "connection.close-ok" [] {} []
        /// RabbitMQ: the server takes no publishes for now.
        ConnectionBlocked => Blocked<'a> = 60 "connection.blocked" [] {
            /// For people, such as `low on memory`.
            reason: &'a str,
        } []
        /// RabbitMQ: publishes are taken again.
        ConnectionUnblocked => Unblocked = 61 "connection.unblocked" [] {} []
        /// RabbitMQ: a new secret (a token) for an open connection.
        ConnectionUpdateSecret => UpdateSecret<'a> = 70 "connection.update-secret" [] {
            /// The secret.
            new_secret: &'a [u8],
            /// For people.
            reason: &'a str,
        } []
        /// RabbitMQ: the new secret is taken.
        ConnectionUpdateSecretOk => UpdateSecretOk = 71 "connection.update-secret-ok" [] {} []
    }

    /// Class 20: channels.
    channel = 20 {
        /// Opens the channel on whose number it is sent.
        ChannelOpen => Open = 10 "channel.open" [] {} [&str]
        /// The channel is open.
        ChannelOpenOk => OpenOk = 11 "channel.open-ok" [] {} [&[u8]]
        /// Asks the other side to stop or go on sending content.
        ChannelFlow => Flow = 20 "channel.flow" [] {
            /// Go on?
            active: bool,
        } []
        /// Confirms it.
        ChannelFlowOk => FlowOk = 21 "channel.flow-ok" [] {
            /// Going on?
            active: bool,
        } []
        /// The end of the channel, with the reason.
        ChannelClose => Close<'a> = 40 "channel.close" [] {
            /// See [`ReplyCode`](crate::ReplyCode).
            reply_code: u16,
            /// For people.
            reply_text: &'a str,
            /// The class of the method that was at fault, or 0.
            class_id: u16,
            /// The method that was at fault, or 0.
            method_id: u16,
        } []
        /// Confirms the end.
        ChannelCloseOk => CloseOk = 41 "channel.close-ok" [] {} []
    }

    /// Class 30: access tickets of AMQP 0-8, which RabbitMQ still grants to old clients.
    access = 30 {
        /// Asks for a ticket.
        AccessRequest => Request<'a> = 10 "access.request" [] {
            /// A realm such as `/data`.
            realm: &'a str,
            /// Alone?
            exclusive: bool,
            /// To look?
            passive: bool,
            /// To manage?
            active: bool,
            /// To write?
            write: bool,
            /// To read?
            read: bool,
        } []
        /// The ticket; always 1 and never looked at.
        AccessRequestOk => RequestOk = 11 "access.request-ok" [] {
            /// 1.
            ticket: u16,
        } []
    }

    /// Class 40: exchanges.
    exchange = 40 {
        /// Creates an exchange, or checks that it is as described.
        ExchangeDeclare => Declare<'a> = 10 "exchange.declare" [u16] {
            /// Its name.
            exchange: &'a str,
            /// `direct`, `fanout`, `topic`, `headers`, ...
            kind: &'a str,
            /// Only ask whether it exists.
            passive: bool,
            /// Does it outlive the server?
            durable: bool,
            /// Is it deleted after its last binding?
            auto_delete: bool,
            /// May only other exchanges publish to it?
            internal: bool,
            /// No answer wanted.
            no_wait: bool,
            /// Such as `alternate-exchange`.
            arguments: FieldTable,
        } []
        /// It exists.
        ExchangeDeclareOk => DeclareOk = 11 "exchange.declare-ok" [] {} []
        /// Deletes an exchange.
        ExchangeDelete => Delete<'a> = 20 "exchange.delete" [u16] {
            /// Its name.
            exchange: &'a str,
            /// Only if it has no bindings.
            if_unused: bool,
            /// No answer wanted.
            no_wait: bool,
        } []
        /// It is gone.
        ExchangeDeleteOk => DeleteOk = 21 "exchange.delete-ok" [] {} []
        /// RabbitMQ: binds an exchange to another.
        ExchangeBind => Bind<'a> = 30 "exchange.bind" [u16] {
            /// Where messages go.
            destination: &'a str,
            /// Where they come from.
            source: &'a str,
            /// In the meaning of the source's type.
            routing_key: &'a str,
            /// No answer wanted.
            no_wait: bool,
            /// Such as the header values to match.
            arguments: FieldTable,
        } []
        /// RabbitMQ: bound.
        ExchangeBindOk => BindOk = 31 "exchange.bind-ok" [] {} []
        /// RabbitMQ: removes such a binding.
        ExchangeUnbind => Unbind<'a> = 40 "exchange.unbind" [u16] {
            /// Where messages went.
            destination: &'a str,
            /// Where they came from.
            source: &'a str,
            /// As at bind.
            routing_key: &'a str,
            /// No answer wanted.
            no_wait: bool,
            /// As at bind.
            arguments: FieldTable,
        } []
        /// RabbitMQ: unbound. The number is 51, not 41.
        ExchangeUnbindOk => UnbindOk = 51 "exchange.unbind-ok" [] {} []
    }

    /// Class 50: queues.
    queue = 50 {
        /// Creates a queue, or checks that it is as described.
        QueueDeclare => Declare<'a> = 10 "queue.declare" [u16] {
            /// Its name; empty: the server makes one.
            queue: &'a str,
            /// Only ask whether it exists.
            passive: bool,
            /// Does it outlive the server?
            durable: bool,
            /// For this connection alone, and gone with it.
            exclusive: bool,
            /// Is it deleted after its last consumer?
            auto_delete: bool,
            /// No answer wanted.
            no_wait: bool,
            /// Such as `x-queue-type`.
            arguments: FieldTable,
        } []
        /// It exists.
        QueueDeclareOk => DeclareOk<'a> = 11 "queue.declare-ok" [] {
            /// Its name.
            queue: &'a str,
            /// Messages ready for delivery.
            message_count: u32,
            /// Consumers.
            consumer_count: u32,
        } []
        /// Binds a queue to an exchange.
        QueueBind => Bind<'a> = 20 "queue.bind" [u16] {
            /// The queue; empty: the last one declared on this channel.
            queue: &'a str,
            /// Where messages come from.
            exchange: &'a str,
            /// In the meaning of the exchange's type.
            routing_key: &'a str,
            /// No answer wanted.
            no_wait: bool,
            /// Such as the header values to match.
            arguments: FieldTable,
        } []
        /// Bound.
        QueueBindOk => BindOk = 21 "queue.bind-ok" [] {} []
        /// Drops what is ready in a queue.
        QueuePurge => Purge<'a> = 30 "queue.purge" [u16] {
            /// The queue; empty: the last one declared on this channel.
            queue: &'a str,
            /// No answer wanted.
            no_wait: bool,
        } []
        /// Dropped.
        QueuePurgeOk => PurgeOk = 31 "queue.purge-ok" [] {
            /// How many messages.
            message_count: u32,
        } []
        /// Deletes a queue.
        QueueDelete => Delete<'a> = 40 "queue.delete" [u16] {
            /// The queue; empty: the last one declared on this channel.
            queue: &'a str,
            /// Only if it has no consumers.
            if_unused: bool,
            /// Only if it has no messages.
            if_empty: bool,
            /// No answer wanted.
            no_wait: bool,
        } []
        /// It is gone.
        QueueDeleteOk => DeleteOk = 41 "queue.delete-ok" [] {
            /// How many messages went with it.
            message_count: u32,
        } []
        /// Removes a binding.
        QueueUnbind => Unbind<'a> = 50 "queue.unbind" [u16] {
            /// The queue; empty: the last one declared on this channel.
            queue: &'a str,
            /// Where messages came from.
            exchange: &'a str,
            /// As at bind.
            routing_key: &'a str,
            /// As at bind.
            arguments: FieldTable,
        } []
        /// Unbound.
        QueueUnbindOk => UnbindOk = 51 "queue.unbind-ok" [] {} []
    }

    /// Class 60: publishing, delivering, acknowledging.
    basic = 60 {
        /// Limits what may be delivered and not yet acknowledged.
        BasicQos => Qos = 10 "basic.qos" [] {
            /// In octets; RabbitMQ knows only 0.
            prefetch_size: u32,
            /// In messages; 0: no limit.
            prefetch_count: u16,
            /// RabbitMQ: for the channel as a whole, instead of for each new consumer.
            global: bool,
        } []
        /// Taken.
        BasicQosOk => QosOk = 11 "basic.qos-ok" [] {} []
        /// Starts a consumer.
        BasicConsume => Consume<'a> = 20 "basic.consume" [u16] {
            /// The queue; empty: the last one declared on this channel.
            queue: &'a str,
            /// Its tag; empty: the server makes one.
            consumer_tag: &'a str,
            /// Nothing that this connection published; RabbitMQ ignores it.
            no_local: bool,
            /// Deliveries count as acknowledged when sent.
            no_ack: bool,
            /// The only consumer of the queue.
            exclusive: bool,
            /// No answer wanted.
            no_wait: bool,
            /// Such as `x-priority`.
            arguments: FieldTable,
        } []
        /// Consuming.
        BasicConsumeOk => ConsumeOk<'a> = 21 "basic.consume-ok" [] {
            /// Its tag.
            consumer_tag: &'a str,
        } []
        /// Ends a consumer; from the server (RabbitMQ): its queue is gone.
        BasicCancel => Cancel<'a> = 30 "basic.cancel" [] {
            /// Its tag.
            consumer_tag: &'a str,
            /// No answer wanted.
            no_wait: bool,
        } []
        /// Ended.
        BasicCancelOk => CancelOk<'a> = 31 "basic.cancel-ok" [] {
            /// Its tag.
            consumer_tag: &'a str,
        } []
        /// A message to an exchange; content follows.
        BasicPublish => Publish<'a> = 40 "basic.publish" [u16] {
            /// The exchange; empty: the default one.
            exchange: &'a str,
            /// In the meaning of the exchange's type.
            routing_key: &'a str,
            /// Return it if it reaches no queue.
            mandatory: bool,
            /// Return it if nobody takes it at once; RabbitMQ refuses this with 540.
            immediate: bool,
        } []
        /// A mandatory message that reached no queue; content follows.
        BasicReturn => Return<'a> = 50 "basic.return" [] {
            /// 312 or 313.
            reply_code: u16,
            /// For people.
            reply_text: &'a str,
            /// As published.
            exchange: &'a str,
            /// As published.
            routing_key: &'a str,
        } []
        /// A message to a consumer; content follows.
        BasicDeliver => Deliver<'a> = 60 "basic.deliver" [] {
            /// Whose it is.
            consumer_tag: &'a str,
            /// Counted from 1 on each channel; to acknowledge by.
            delivery_tag: u64,
            /// May it have been delivered before?
            redelivered: bool,
            /// As published.
            exchange: &'a str,
            /// As published.
            routing_key: &'a str,
        } []
        /// Asks for one message.
        BasicGet => Get<'a> = 70 "basic.get" [u16] {
            /// The queue; empty: the last one declared on this channel.
            queue: &'a str,
            /// It counts as acknowledged when sent.
            no_ack: bool,
        } []
        /// The message; content follows.
        BasicGetOk => GetOk<'a> = 71 "basic.get-ok" [] {
            /// Counted from 1 on each channel; to acknowledge by.
            delivery_tag: u64,
            /// May it have been delivered before?
            redelivered: bool,
            /// As published.
            exchange: &'a str,
            /// As published.
            routing_key: &'a str,
            /// Messages that are left, ready.
            message_count: u32,
        } []
        /// The queue is empty.
        BasicGetEmpty => GetEmpty = 72 "basic.get-empty" [] {} [&str]
        /// Done with a message; from the server: a publish is confirmed.
        BasicAck => Ack = 80 "basic.ack" [] {
            /// The message; with `multiple`, 0 means all.
            delivery_tag: u64,
            /// And all before it.
            multiple: bool,
        } []
        /// A message that cannot be handled.
        BasicReject => Reject = 90 "basic.reject" [] {
            /// The message.
            delivery_tag: u64,
            /// Back into the queue, or dropped?
            requeue: bool,
        } []
        /// `basic.recover` without an answer, deprecated.
        BasicRecoverAsync => RecoverAsync = 100 "basic.recover-async" [] {
            /// Back into the queue; RabbitMQ knows only true.
            requeue: bool,
        } []
        /// All unacknowledged messages of the channel go back.
        BasicRecover => Recover = 110 "basic.recover" [] {
            /// Back into the queue; RabbitMQ knows only true.
            requeue: bool,
        } []
        /// They did.
        BasicRecoverOk => RecoverOk = 111 "basic.recover-ok" [] {} []
        /// RabbitMQ: `basic.reject` of several; from the server: a publish failed.
        BasicNack => Nack = 120 "basic.nack" [] {
            /// The message; with `multiple`, 0 means all.
            delivery_tag: u64,
            /// And all before it.
            multiple: bool,
            /// Back into the queue, or dropped?
            requeue: bool,
        } []
    }

    /// Class 85: RabbitMQ's publisher confirms.
    confirm = 85 {
        /// From now on, each publish on this channel is answered by an ack or nack.
        ConfirmSelect => Select = 10 "confirm.select" [] {
            /// No answer wanted.
            no_wait: bool,
        } []
        /// Taken.
        ConfirmSelectOk => SelectOk = 11 "confirm.select-ok" [] {} []
    }

    /// Class 90: transactions over publishes and acknowledgements of one channel.
    tx = 90 {
        /// The channel works in transactions from now on.
        TxSelect => Select = 10 "tx.select" [] {} []
        /// Taken.
        TxSelectOk => SelectOk = 11 "tx.select-ok" [] {} []
        /// Does all since the last one.
        TxCommit => Commit = 20 "tx.commit" [] {} []
        /// Done.
        TxCommitOk => CommitOk = 21 "tx.commit-ok" [] {} []
        /// Forgets all since the last one.
        TxRollback => Rollback = 30 "tx.rollback" [] {} []
        /// Forgotten.
        TxRollbackOk => RollbackOk = 31 "tx.rollback-ok" [] {} []
    }
}

/// The two reserved fields of `connection.open`: a short string and a bit.
#[derive(Default)]
struct OpenReserved<'a> {
    capabilities: &'a str,
    insist: bool,
}

impl<'a> Field<'a> for OpenReserved<'a> {
    fn read(reader: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        Ok(OpenReserved { capabilities: reader.short_str(field)?, insist: reader.bit(field)? })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.short_str(self.capabilities);
        writer.bit(self.insist);
    }
}
