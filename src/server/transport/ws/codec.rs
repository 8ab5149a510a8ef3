//! Frames of RFC 6455: decodes those of a client, and encodes those of a server. A decoder holds memory only
//! while it has a part of a message.
//!
//! The rules, and the order in which they are checked, are those of `tungstenite`, which is the oracle of the
//! tests of this module. A frame is rejected by its header, before its payload is received.

use bytes::Bytes;
use bytestring::ByteString;
use thiserror::Error;

/// Longest payload of a control frame (RFC 6455 §5.5), in bytes.
const MAX_CONTROL: u64 = 125;

/// Longest header of a frame, in bytes.
const MAX_HEADER: usize = 14;

/// Memory that an announced payload reserves before any of it is received, in bytes.
const MAX_RESERVED: u64 = 64 * 1024;

/// Opcode of a frame (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// A whole message or a control frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WsMessage {
    Text(ByteString),
    Binary(Bytes),
    Ping(Vec<u8>),
    Pong,
    /// Close frame, with its code and reason.
    Close(Option<(u16, String)>),
}

/// Reason why the input cannot be decoded. Nothing can be decoded after it. The texts are sent as the reasons
/// of close frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum DecodeError {
    #[error("message too big")]
    MessageTooBig,
    #[error("the text is not UTF-8")]
    InvalidUtf8,
    #[error("Received an unmasked frame from client")]
    UnmaskedFrame,
    #[error("Reserved bits are non-zero")]
    ReservedBits,
    #[error("Encountered invalid opcode: {0}")]
    InvalidOpcode(u8),
    #[error("Fragmented control frame")]
    FragmentedControlFrame,
    #[error("Control frame too big (payload must be 125 bytes or less)")]
    ControlFrameTooBig,
    #[error("Continue frame but nothing to continue")]
    UnexpectedContinuation,
    #[error("While waiting for more fragments received: {}", if *text { "TEXT" } else { "BINARY" })]
    ExpectedContinuation { text: bool },
    #[error("Invalid close sequence")]
    InvalidClosePayload,
}

/// Decodes the frames of a client.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// An incomplete message or frame. Boxed, as most reads end at the end of a message.
    partial: Option<Box<Partial>>,
}

/// The received part of an incomplete message or frame.
#[derive(Debug, Default)]
struct Partial {
    header: [u8; MAX_HEADER],
    header_len: usize,
    /// The frame whose payload is being received, and the length of the received part of that payload.
    frame: Option<FrameHeader>,
    received: u64,
    /// Payload of a control frame.
    control: Vec<u8>,
    message: Option<PartialMessage>,
}

#[derive(Debug)]
struct PartialMessage {
    text: bool,
    bytes: Vec<u8>,
    /// Length of the part of a text that is known to be UTF-8.
    valid: usize,
}

#[derive(Clone, Copy, Debug)]
struct FrameHeader {
    fin: bool,
    reserved: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    length: u64,
}

impl Decoder {
    /// Decodes the next message from `input` and advances `input` behind it. Returns `None` if the message is
    /// incomplete; then all of `input` is consumed.
    ///
    /// # Errors
    /// The message has more than `max_message` bytes, or the input violates the protocol; nothing more can be
    /// decoded.
    pub(super) fn next(
        &mut self,
        input: &mut &[u8],
        max_message: u64,
    ) -> Result<Option<WsMessage>, DecodeError> {
        if self.partial.is_none() {
            if input.is_empty() {
                return Ok(None);
            }
            if let Some(message) = parse_unfragmented(input, max_message) {
                return message.map(Some);
            }
        }
        // On the stack while decoding, as it may be complete at once.
        let mut partial = self.partial.take().map(|partial| *partial).unwrap_or_default();
        let message = partial.next(input, max_message)?;
        if partial.header_len > 0 || partial.frame.is_some() || partial.message.is_some() {
            self.partial = Some(Box::new(partial));
        }
        Ok(message)
    }

    /// Returns the memory held for an incomplete message, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            let message = partial.message.as_ref().map_or(0, |message| message.bytes.capacity());
            size_of::<Partial>() + partial.control.capacity() + message
        })
    }

    /// Drops an incomplete message.
    pub(super) fn discard(&mut self) {
        self.partial = None;
    }
}

impl Partial {
    fn next(&mut self, input: &mut &[u8], max_message: u64) -> Result<Option<WsMessage>, DecodeError> {
        loop {
            let header = match self.frame {
                Some(header) => header,
                None => {
                    let Some(header) = self.next_header(input)? else { return Ok(None) };
                    self.begin_frame(header, max_message)?;
                    header
                }
            };
            let missing = header.length - self.received;
            let (payload, rest) =
                input.split_at(usize::try_from(missing).unwrap_or(usize::MAX).min(input.len()));
            *input = rest;
            let buffer = match &mut self.message {
                Some(message) if !header.opcode.is_control() => &mut message.bytes,
                _ => &mut self.control,
            };
            if buffer.capacity() - buffer.len() < payload.len() {
                // Exactly the payload if it is received at once; doubling if it is received in many parts.
                let ahead = MAX_RESERVED.max(payload.len() as u64).max(buffer.len() as u64);
                buffer.reserve_exact(missing.min(ahead) as usize);
            }
            let start = buffer.len();
            buffer.extend_from_slice(payload);
            unmask(&mut buffer[start..], header.mask.unwrap_or_default(), self.received);
            self.received += payload.len() as u64;
            if self.received < header.length {
                return Ok(None);
            }
            (self.frame, self.received) = (None, 0);
            if let Some(message) = self.end_frame(header)? {
                return Ok(Some(message));
            }
        }
    }

    /// Returns the header of the next frame, once all of it is received.
    fn next_header(&mut self, input: &mut &[u8]) -> Result<Option<FrameHeader>, DecodeError> {
        if self.header_len == 0
            && let Some((header, length)) = FrameHeader::parse(input)?
        {
            *input = &input[length..];
            return Ok(Some(header));
        }
        while let Some((&byte, rest)) = input.split_first() {
            self.header[self.header_len] = byte;
            self.header_len += 1;
            *input = rest;
            if let Some((header, _)) = FrameHeader::parse(&self.header[..self.header_len])? {
                self.header_len = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Checks the header of a frame, and expects its payload.
    fn begin_frame(&mut self, header: FrameHeader, max_message: u64) -> Result<(), DecodeError> {
        if header.length > max_message {
            return Err(DecodeError::MessageTooBig);
        }
        if header.mask.is_none() {
            return Err(DecodeError::UnmaskedFrame);
        }
        if header.reserved {
            return Err(DecodeError::ReservedBits);
        }
        match (header.opcode, &self.message) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {
                if !header.fin {
                    return Err(DecodeError::FragmentedControlFrame);
                }
                if header.length > MAX_CONTROL {
                    return Err(DecodeError::ControlFrameTooBig);
                }
            }
            (Opcode::Continuation, None) => return Err(DecodeError::UnexpectedContinuation),
            (Opcode::Continuation, Some(message)) => {
                if header.length > max_message - message.bytes.len() as u64 {
                    return Err(DecodeError::MessageTooBig);
                }
            }
            (opcode @ (Opcode::Text | Opcode::Binary), open) => {
                let text = opcode == Opcode::Text;
                if open.is_some() {
                    return Err(DecodeError::ExpectedContinuation { text });
                }
                self.message = Some(PartialMessage { text, bytes: Vec::new(), valid: 0 });
            }
        }
        self.frame = Some(header);
        Ok(())
    }

    /// Returns the message that a received frame completes.
    fn end_frame(&mut self, header: FrameHeader) -> Result<Option<WsMessage>, DecodeError> {
        match header.opcode {
            Opcode::Ping => return Ok(Some(WsMessage::Ping(std::mem::take(&mut self.control)))),
            Opcode::Pong => {
                self.control = Vec::new();
                return Ok(Some(WsMessage::Pong));
            }
            Opcode::Close => return parse_close(&std::mem::take(&mut self.control)).map(Some),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
        if header.fin {
            let Some(PartialMessage { text, bytes, .. }) = self.message.take() else { return Ok(None) };
            return data_message(bytes, text).map(Some);
        }
        if let Some(message) = self.message.as_mut().filter(|message| message.text) {
            match std::str::from_utf8(&message.bytes[message.valid..]) {
                Ok(_) => message.valid = message.bytes.len(),
                // A character may continue in the next frame.
                Err(error) if error.error_len().is_none() => message.valid += error.valid_up_to(),
                Err(_) => return Err(DecodeError::InvalidUtf8),
            }
        }
        Ok(None)
    }
}

/// Decodes the message at the start of `input` if it is one whole, valid frame, and advances `input` behind
/// it. Returns `None` otherwise. Nearly all messages take this path, which is much cheaper than [`Partial`].
fn parse_unfragmented(input: &mut &[u8], max_message: u64) -> Option<Result<WsMessage, DecodeError>> {
    let (header, length) = FrameHeader::parse(input).ok()??;
    let FrameHeader { fin: true, reserved: false, mask: Some(mask), .. } = header else { return None };
    let text = match header.opcode {
        Opcode::Text => true,
        Opcode::Binary => false,
        Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => return None,
    };
    if header.length > max_message {
        return None;
    }
    let (payload, rest) = input[length..].split_at_checked(usize::try_from(header.length).ok()?)?;
    *input = rest;
    let mut bytes = payload.to_vec();
    unmask(&mut bytes, mask, 0);
    Some(data_message(bytes, text))
}

fn data_message(bytes: Vec<u8>, text: bool) -> Result<WsMessage, DecodeError> {
    let bytes = Bytes::from(bytes);
    if text {
        ByteString::try_from(bytes).map(WsMessage::Text).map_err(|_| DecodeError::InvalidUtf8)
    } else {
        Ok(WsMessage::Binary(bytes))
    }
}

fn parse_close(payload: &[u8]) -> Result<WsMessage, DecodeError> {
    match payload {
        [] => Ok(WsMessage::Close(None)),
        [_] => Err(DecodeError::InvalidClosePayload),
        [high, low, reason @ ..] => {
            let reason = std::str::from_utf8(reason).map_err(|_| DecodeError::InvalidUtf8)?;
            Ok(WsMessage::Close(Some((u16::from_be_bytes([*high, *low]), reason.to_owned()))))
        }
    }
}

/// Returns true if a close frame may have this code (RFC 6455 §7.4, and the codes registered since).
pub(super) fn is_valid_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999)
}

impl FrameHeader {
    /// Parses the header at the start of `bytes`. Returns it with its length, or `None` if it is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<(FrameHeader, usize)>, DecodeError> {
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
        let Some(opcode) = Opcode::from_bits(first & 0x0f) else {
            return Err(DecodeError::InvalidOpcode(first & 0x0f));
        };
        let header =
            FrameHeader { fin: first & 0x80 != 0, reserved: first & 0x70 != 0, opcode, mask, length };
        Ok(Some((header, bytes.len() - rest.len())))
    }
}

/// Unmasks a part of a payload that begins at `offset`. The chunks are as wide as the widest registers, so
/// that the loop is compiled to vector instructions.
fn unmask(bytes: &mut [u8], mut mask: [u8; 4], offset: u64) {
    mask.rotate_left((offset % 4) as usize);
    let (wide, rest) = bytes.as_chunks_mut::<32>();
    for chunk in wide {
        for (at, byte) in chunk.iter_mut().enumerate() {
            *byte ^= mask[at % 4];
        }
    }
    let (words, rest) = rest.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// Appends an unfragmented, unmasked frame to `out`. The payload is the concatenation of `parts`.
pub(super) fn encode(opcode: Opcode, parts: &[&[u8]], out: &mut Vec<u8>) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(length + 10);
    out.push(0x80 | opcode as u8);
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
    parts.iter().for_each(|part| out.extend_from_slice(part));
}
