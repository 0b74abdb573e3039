//! The callbacks that a wrapper hands on as they are.

/// Callbacks of a [`Protocol`](crate::Protocol) that go to the protocol in `$field`.
macro_rules! delegate_protocol {
    ($field:ident: $($callback:ident),* $(,)?) => {
        $(
            fn $callback(&mut self, transport: &crate::Transport) {
                self.$field.$callback(transport);
            }
        )*
    };
}
pub(crate) use delegate_protocol;

/// The callbacks of a [`Factory`](crate::Factory) besides `build_protocol`, which go to the factory in `$field`.
macro_rules! delegate_factory {
    ($field:ident) => {
        fn start_factory(&mut self) {
            self.$field.start_factory();
        }

        fn stop_factory(&mut self) {
            self.$field.stop_factory();
        }
    };
}
pub(crate) use delegate_factory;

/// The callbacks of a [`ClientFactory`](crate::ClientFactory), which go to the factory in `$field`.
macro_rules! delegate_client_factory {
    ($field:ident) => {
        fn started_connecting(&mut self, connector: &crate::Connector) {
            self.$field.started_connecting(connector);
        }

        fn client_connection_made(
            &mut self,
            connector: &crate::Connector,
            transport: &crate::Transport,
        ) {
            self.$field.client_connection_made(connector, transport);
        }

        fn client_connection_failed(
            &mut self,
            connector: &crate::Connector,
            reason: &crate::Reason,
        ) {
            self.$field.client_connection_failed(connector, reason);
        }

        fn client_connection_lost(&mut self, connector: &crate::Connector, reason: &crate::Reason) {
            self.$field.client_connection_lost(connector, reason);
        }
    };
}
pub(crate) use delegate_client_factory;
