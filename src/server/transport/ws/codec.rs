//! The frames of RFC 6455, from a client to bytes and from a server to frames: pure, and without memory of its own
//! while no frame is under way.
//!
//! The rules are those of the library that the clients of the tests use (`tungstenite`), which is the oracle of this
//! module's tests; what a frame's head gives away is refused before its payload is waited for.

use bytes::Bytes;
use bytestring::ByteString;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The longest payload of a control frame (RFC 6455 §5.5).
const MAX_CONTROL: u64 = 125;

/// The longest head of a frame.
const MAX_HEAD: usize = 14;

/// How much is set aside at least for a payload that is announced, in bytes, if it is so long: the rest is as it comes.
const MAX_AHEAD: u64 = 64 * 1024;

/// A message, or a control frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    Text(ByteString),
    Binary(Bytes),
    Ping(Vec<u8>),
    Pong,
    /// With a code and a reason, or with nothing.
    Close(Option<(u16, String)>),
}

/// Why what came cannot be read. Nothing can be read after it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    TooBig,
    NotUtf8,
    Protocol(ProtocolError),
}

impl From<ProtocolError> for DecodeError {
    fn from(error: ProtocolError) -> Self {
        DecodeError::Protocol(error)
    }
}

/// Reads what a client sends.
#[derive(Debug)]
pub(super) struct Decoder {
    max_message: u64,
    /// What has begun. Boxed: nearly always, nothing has.
    begun: Option<Box<Partial>>,
}

/// What has come of a message or frame of which more is to come.
#[derive(Debug, Default)]
struct Partial {
    /// The first bytes of a head, and how many.
    head: [u8; MAX_HEAD],
    head_len: usize,
    /// The frame whose payload is coming, and how much of it has come.
    frame: Option<Head>,
    come: u64,
    /// The payload of a control frame, as far as it has come.
    control: Vec<u8>,
    /// The message of which frames have come.
    message: Option<Message>,
}

#[derive(Debug)]
struct Message {
    text: bool,
    bytes: Vec<u8>,
    /// How much of a text is known to be UTF-8.
    valid: usize,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    last: bool,
    reserved: bool,
    opcode: OpCode,
    mask: Option<[u8; 4]>,
    length: u64,
}

impl Decoder {
    /// Messages of more than `max_message` bytes are too big.
    pub(super) fn new(max_message: usize) -> Self {
        Decoder { max_message: max_message as u64, begun: None }
    }

    /// The next thing in `input`, of which what is read is cut off. `None` when more has to come.
    ///
    /// # Errors
    /// It cannot be read; neither can what comes after it.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Item>, DecodeError> {
        if self.begun.is_none() {
            if input.is_empty() {
                return Ok(None);
            }
            if let Some(message) = whole(input, self.max_message) {
                return message.map(Some);
            }
        }
        // On the stack while it is worked on: what is not there as a whole may be so in a moment.
        let mut begun = self.begun.take().map(|begun| *begun).unwrap_or_default();
        let item = begun.next(input, self.max_message)?;
        if begun.head_len > 0 || begun.frame.is_some() || begun.message.is_some() {
            self.begun = Some(Box::new(begun));
        }
        Ok(item)
    }

    /// How much memory is held for what has begun.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.begun.as_ref().map_or(0, |begun| {
            begun.control.capacity() + begun.message.as_ref().map_or(0, |message| message.bytes.capacity())
        })
    }
}

impl Partial {
    fn next(&mut self, input: &mut &[u8], max_message: u64) -> Result<Option<Item>, DecodeError> {
        loop {
            let head = match self.frame {
                Some(head) => head,
                None => {
                    let Some(head) = self.next_head(input)? else { return Ok(None) };
                    self.begin(head, max_message)?;
                    head
                }
            };
            let rest = head.length - self.come;
            let (payload, after) =
                input.split_at(usize::try_from(rest).unwrap_or(usize::MAX).min(input.len()));
            *input = after;
            let into = match (&mut self.message, head.opcode) {
                (Some(message), OpCode::Data(_)) => &mut message.bytes,
                _ => &mut self.control,
            };
            if into.capacity() - into.len() < payload.len() {
                // Exactly what comes, if it comes at once; twice what has come, if it comes in many parts.
                let ahead = MAX_AHEAD.max(payload.len() as u64).max(into.len() as u64);
                into.reserve_exact(rest.min(ahead) as usize);
            }
            let at = into.len();
            into.extend_from_slice(payload);
            unmask(&mut into[at..], head.mask.unwrap_or_default(), self.come);
            self.come += payload.len() as u64;
            if self.come < head.length {
                return Ok(None);
            }
            (self.frame, self.come) = (None, 0);
            if let Some(item) = self.complete(head)? {
                return Ok(Some(item));
            }
        }
    }

    /// The next frame's head, once it is all there.
    fn next_head(&mut self, input: &mut &[u8]) -> Result<Option<Head>, ProtocolError> {
        if self.head_len == 0
            && let Some((head, length)) = Head::parse(input)?
        {
            *input = &input[length..];
            return Ok(Some(head));
        }
        while let Some((&byte, rest)) = input.split_first() {
            self.head[self.head_len] = byte;
            self.head_len += 1;
            *input = rest;
            if let Some((head, _)) = Head::parse(&self.head[..self.head_len])? {
                self.head_len = 0;
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// A frame begins. What is wrong with it is found in the order in which the library finds it.
    fn begin(&mut self, head: Head, max_message: u64) -> Result<(), DecodeError> {
        if head.length > max_message {
            return Err(DecodeError::TooBig);
        }
        if head.mask.is_none() {
            return Err(ProtocolError::UnmaskedFrameFromClient.into());
        }
        if head.reserved {
            return Err(ProtocolError::NonZeroReservedBits.into());
        }
        match (head.opcode, &self.message) {
            (OpCode::Control(_), _) if !head.last => Err(ProtocolError::FragmentedControlFrame)?,
            (OpCode::Control(_), _) if head.length > MAX_CONTROL => Err(ProtocolError::ControlFrameTooBig)?,
            (OpCode::Control(_), _) => {}
            (OpCode::Data(Data::Continue), None) => Err(ProtocolError::UnexpectedContinueFrame)?,
            (OpCode::Data(Data::Continue), Some(message)) => {
                if head.length > max_message - message.bytes.len() as u64 {
                    return Err(DecodeError::TooBig);
                }
            }
            (OpCode::Data(data), Some(_)) => Err(ProtocolError::ExpectedFragment(data))?,
            (OpCode::Data(data), None) => {
                let text = matches!(data, Data::Text);
                self.message = Some(Message { text, bytes: Vec::new(), valid: 0 });
            }
        }
        self.frame = Some(head);
        Ok(())
    }

    /// A frame is all there. What has come with it, unless it is a part of something.
    fn complete(&mut self, head: Head) -> Result<Option<Item>, DecodeError> {
        if let OpCode::Control(control) = head.opcode {
            let payload = std::mem::take(&mut self.control);
            return Ok(Some(match control {
                Control::Ping => Item::Ping(payload),
                Control::Pong => Item::Pong,
                Control::Close | Control::Reserved(_) => Item::Close(close(&payload)?),
            }));
        }
        if head.last {
            let Some(Message { text, bytes, .. }) = self.message.take() else { return Ok(None) };
            return message(bytes, text).map(Some);
        }
        if let Some(message) = self.message.as_mut().filter(|message| message.text) {
            match std::str::from_utf8(&message.bytes[message.valid..]) {
                Ok(_) => message.valid = message.bytes.len(),
                // A character may go on in the next frame.
                Err(error) if error.error_len().is_none() => message.valid += error.valid_up_to(),
                Err(_) => return Err(DecodeError::NotUtf8),
            }
        }
        Ok(None)
    }
}

/// The message at the beginning of `input`, which is cut off, if it is one frame with nothing wrong about it and is there to
/// its end. Nearly all are, and take a tenth of a message's instructions less than by way of [`Partial`].
fn whole(input: &mut &[u8], max_message: u64) -> Option<Result<Item, DecodeError>> {
    let (head, length) = Head::parse(input).ok()??;
    let Head { last: true, reserved: false, mask: Some(mask), .. } = head else { return None };
    let text = match head.opcode {
        OpCode::Data(Data::Text) => true,
        OpCode::Data(Data::Binary) => false,
        OpCode::Data(_) | OpCode::Control(_) => return None,
    };
    if head.length > max_message {
        return None;
    }
    let (payload, rest) = input[length..].split_at_checked(usize::try_from(head.length).ok()?)?;
    *input = rest;
    let mut bytes = payload.to_vec();
    unmask(&mut bytes, mask, 0);
    Some(message(bytes, text))
}

/// A message that is all there.
fn message(bytes: Vec<u8>, text: bool) -> Result<Item, DecodeError> {
    let bytes = Bytes::from(bytes);
    if text {
        ByteString::try_from(bytes).map(Item::Text).map_err(|_| DecodeError::NotUtf8)
    } else {
        Ok(Item::Binary(bytes))
    }
}

impl Head {
    /// The head at the beginning of `bytes` and its length, if it is all there.
    fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, ProtocolError> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        let (mask, rest) = match second & 0x80 {
            0 => (None, rest),
            _ => match rest.split_first_chunk() {
                Some((mask, rest)) => (Some(*mask), rest),
                None => return Ok(None),
            },
        };
        let opcode = OpCode::from(first & 0x0f);
        if matches!(opcode, OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_))) {
            return Err(ProtocolError::InvalidOpcode(first & 0x0f));
        }
        let head = Head { last: first & 0x80 != 0, reserved: first & 0x70 != 0, opcode, mask, length };
        Ok(Some((head, bytes.len() - rest.len())))
    }
}

/// Takes the mask off a part of a payload that begins at `at`, 32 bytes at a time: in the widest registers there are, a
/// sixth of the instructions of the whole message less than with eight.
fn unmask(bytes: &mut [u8], mut mask: [u8; 4], at: u64) {
    mask.rotate_left((at % 4) as usize);
    let (wide, rest) = bytes.as_chunks_mut::<32>();
    for wide in wide {
        for (at, byte) in wide.iter_mut().enumerate() {
            *byte ^= mask[at % 4];
        }
    }
    let (fours, rest) = rest.as_chunks_mut::<4>();
    for four in fours {
        *four = (u32::from_ne_bytes(*four) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// What a close frame says.
fn close(payload: &[u8]) -> Result<Option<(u16, String)>, DecodeError> {
    match payload {
        [] => Ok(None),
        [_] => Err(ProtocolError::InvalidCloseSequence.into()),
        [high, low, reason @ ..] => {
            let reason = std::str::from_utf8(reason).map_err(|_| DecodeError::NotUtf8)?;
            Ok(Some((u16::from_be_bytes([*high, *low]), reason.to_owned())))
        }
    }
}

/// Appends a frame as a server sends it: whole, and not masked.
pub(super) fn encode(opcode: OpCode, payload: &[&[u8]], out: &mut Vec<u8>) {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    out.reserve(length + 10);
    out.push(0x80 | u8::from(opcode));
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    payload.iter().for_each(|part| out.extend_from_slice(part));
}
