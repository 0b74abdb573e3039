//! What may lie between a protocol and its medium, and changes the bytes as they pass: TLS.
//!
//! ```text
//!   protocol <-- plain -- decode <-- data ------- medium
//!   protocol --- Output -> encode --> wire -----> medium
//! ```

use std::any::Any;
use std::io;

use crate::output::Output;

/// A connection's state between its protocol and its medium. Bytes in, bytes out: it knows neither. `Any`, for the
/// accessors of a certain layer.
pub(crate) trait Layer: Any {
    /// Whether a handshake is under way. Until it is completed the medium is read whatever the protocol wants.
    fn is_opening(&self) -> bool;

    /// Takes in what has come from the medium, and appends to `plain` what that means for the protocol. `data` may be
    /// changed, so that it can be decoded where it lies.
    fn decode(&mut self, data: &mut [u8], plain: &mut Vec<u8>) -> Decoded;

    /// Moves what the protocol has written to `wire`, as far as the peer is ready for it (before the end of a handshake
    /// it is not) and as long as little waits there, and appends what the layer itself has to say. It is called again
    /// once `wire` has been written.
    ///
    /// # Errors
    /// What makes the connection useless. `wire` may hold last words all the same.
    fn encode(&mut self, plain: &mut Output, wire: &mut Output) -> io::Result<()>;

    /// Appends the orderly end of the output: everything has been encoded.
    fn finish(&mut self, wire: &mut Output);

    /// The medium has come to its end.
    ///
    /// # Errors
    /// When the peer had not said that this would be the end: something may have been cut off.
    fn input_ended(&mut self) -> io::Result<()>;
}

/// What came of bytes from the medium.
#[derive(Default)]
pub(crate) struct Decoded {
    /// The handshake has been completed by them.
    pub(crate) opened: bool,
    /// The input has ended: in order, or by an error.
    pub(crate) end: Option<io::Result<()>>,
}

/// A layer, and what waits around it.
pub(crate) struct Layered {
    pub(crate) layer: Box<dyn Layer>,
    /// Encoded, or written before there was a layer.
    pub(crate) wire: Output,
    /// To be decoded before anything else.
    pub(crate) early: Vec<u8>,
    /// The end of the output has been encoded.
    pub(crate) finished: bool,
}

impl Layered {
    pub(crate) fn new(layer: Box<dyn Layer>, wire: Output, early: Vec<u8>) -> Self {
        Self { layer, wire, early, finished: false }
    }

    /// Decodes `data`, after what waits.
    pub(crate) fn decode(&mut self, data: &mut [u8], plain: &mut Vec<u8>) -> Decoded {
        if self.early.is_empty() {
            return self.layer.decode(data, plain);
        }
        let mut early = std::mem::take(&mut self.early);
        early.extend_from_slice(data);
        self.layer.decode(&mut early, plain)
    }
}
