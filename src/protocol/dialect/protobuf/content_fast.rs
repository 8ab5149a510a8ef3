//! Decoding and encoding of contents with data, which is nearly all that is relayed, without a copy of the
//! data. Unusual frames are left to the compiled messages of [`wire`](super::wire), to which the tests
//! compare this fast path.

use bytes::{Buf as _, Bytes};
use prost::encoding::encoded_len_varint;

use crate::protocol::dialect::ContentLayout;
use crate::protocol::frame::{FramePrefix, Message, Outgoing};

/// Longest prefix of the data, in bytes: three tags with a number each, and one with a length.
const MAX_PREFIX: usize = 24;

/// Number of fields of a content, and one: the index of the highest field.
const FIELDS: usize = 8;

/// Content with data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DataContent {
    pub(super) recipient: u32,
    pub(super) last: bool,
    pub(super) data: Bytes,
}

/// Decodes a frame that is a content with each field at most once, in order, and data at the end; returns any
/// other frame as it is.
pub(super) fn decode_content(mut frame: Bytes, layout: ContentLayout) -> Result<DataContent, Bytes> {
    match parse_fields(&frame, layout) {
        Some((recipient, last, prefix)) => {
            frame.advance(prefix);
            Ok(DataContent { recipient, last, data: frame })
        }
        None => Err(frame),
    }
}

/// Returns the recipient, the mark of the last content, and the length of what is before the data.
fn parse_fields(frame: &[u8], layout: ContentLayout) -> Option<(u32, bool, usize)> {
    let facts = layout.facts();
    let mut rest = frame;
    if take_byte(&mut rest)? != delimited(facts.message_field)
        || take_number(&mut rest)? as usize != rest.len()
    {
        return None;
    }
    let (mut numbers, mut last_field) = ([0; FIELDS], 0);
    loop {
        let tag = take_byte(&mut rest)?;
        let number = take_number(&mut rest)?;
        if tag == delimited(facts.data) {
            let is_at_end = number as usize == rest.len();
            let number = |field: u8| numbers.get(usize::from(field)).copied();
            let prefix = frame.len().checked_sub(rest.len())?;
            return is_at_end.then_some((number(facts.recipient)?, number(facts.last)? != 0, prefix));
        }
        let field = tag >> 3;
        if tag & 7 != 0 || field <= last_field || field >= facts.data {
            return None;
        }
        *numbers.get_mut(usize::from(field))? = number;
        last_field = field;
    }
}

/// Encodes a content: these numbers in its first fields, and data.
pub(super) fn encode_content(layout: ContentLayout, numbers: &[u32], data: Option<Bytes>) -> Outgoing {
    let facts = layout.facts();
    let mut prefix = Prefix::new();
    for (field, number) in (1u8..).zip(numbers) {
        prefix.put_field(field << 3, u64::from(*number));
    }
    let mut length = data.as_ref().map_or(0, |data| data.len() as u64);
    if data.is_some() {
        prefix.put_field(delimited(facts.data), length);
    }
    length = length.saturating_add(prefix.end.saturating_sub(FIELDS_START) as u64);
    let prefix = prefix.finish(delimited(facts.message_field), length);
    match data {
        Some(data) => Outgoing::Prefixed(prefix, data),
        None => Message::binary(prefix.to_vec()).into(),
    }
}

/// Place of the fields of a content in its [`Prefix`]: behind the longest tag and length of the content.
const FIELDS_START: usize = 6;

/// The bytes before the data, while they are written: first the fields, whose length is then written in front
/// of them.
struct Prefix {
    buffer: [u8; MAX_PREFIX],
    end: usize,
}

impl Prefix {
    fn new() -> Self {
        Prefix { buffer: [0; MAX_PREFIX], end: FIELDS_START }
    }

    fn put(&mut self, byte: u8) {
        if let Some(next) = self.buffer.get_mut(self.end) {
            *next = byte;
            self.end = self.end.saturating_add(1);
        }
    }

    fn put_field(&mut self, tag: u8, mut number: u64) {
        self.put(tag);
        while number >= 0x80 {
            self.put(number as u8 | 0x80);
            number >>= 7;
        }
        self.put(number as u8);
    }

    /// Returns the bytes, with the tag and length of the content in front.
    fn finish(mut self, tag: u8, length: u64) -> FramePrefix {
        let end = self.end;
        let start = FIELDS_START.saturating_sub(encoded_len_varint(length).saturating_add(1));
        self.end = start;
        self.put_field(tag, length);
        FramePrefix::from_slice(self.buffer.get(start..end).unwrap_or_default())
    }
}

/// Returns the tag of a field that has a length.
const fn delimited(field: u8) -> u8 {
    field << 3 | 2
}

#[inline]
fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*byte)
}

/// Reads a number of 32 bits in up to five bytes; longer ones are left to the compiled messages.
#[inline]
fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0_u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = take_byte(bytes)?;
        number |= u64::from(byte & 0x7f).wrapping_shl(shift);
        if byte < 0x80 {
            return u32::try_from(number).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::dialect::protobuf::wire::compiled;
    use crate::protocol::dialect::release::Addressing;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use strum::VariantArray as _;

    /// Decodes a content with data by the compiled messages.
    fn decode_compiled(frame: &Bytes, layout: ContentLayout) -> Option<DataContent> {
        Some(compiled::decode(frame.clone(), layout)?.content)
    }

    fn whole(frame: Outgoing) -> Bytes {
        let Outgoing::Prefixed(head, data) = frame else { panic!("{frame:?}") };
        [&head[..], &data].concat().into()
    }

    /// Fields in any order, more than once, and of unknown numbers.
    fn fields() -> impl Strategy<Value = Vec<u8>> {
        let number = (1u32..7, any::<u64>(), any::<bool>()).prop_map(|(field, value, small)| {
            let mut out = Vec::new();
            prost::encoding::uint64::encode(field, &(if small { value % 200 } else { value }), &mut out);
            out
        });
        let data = (1u32..7, prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(field, data)| {
            let mut out = Vec::new();
            prost::encoding::bytes::encode(field, &data, &mut out);
            out
        });
        prop::collection::vec(prop_oneof![number, data], 0..5).prop_map(|fields| fields.concat())
    }

    /// A number as it is sent, or with a longer encoding.
    fn number(field: u8, value: u64, padded: bool) -> Vec<u8> {
        let mut out = vec![field << 3];
        prost::encoding::encode_varint(value, &mut out);
        if padded && out.len() < 10 {
            *out.last_mut().unwrap() |= 0x80;
            out.push(0);
        }
        out
    }

    /// A content of this layout with some numbers in order, and data behind them.
    fn shaped(layout: ContentLayout, numbers: &[Option<(u64, bool)>], data: &[u8]) -> Vec<u8> {
        let mut inner = Vec::new();
        for (field, it) in (1..layout.facts().data).zip(numbers) {
            inner.extend(it.iter().flat_map(|(value, padded)| number(field, *value, *padded)));
        }
        prost::encoding::bytes::encode(layout.facts().data.into(), &data.to_vec(), &mut inner);
        let mut frame = Vec::new();
        prost::encoding::bytes::encode(layout.facts().message_field.into(), &inner, &mut frame);
        frame
    }

    fn numbers() -> impl Strategy<Value = Vec<Option<(u64, bool)>>> {
        let value = prop::sample::select(vec![0, 1, 127, 128, u64::from(u32::MAX), 1 << 32, u64::MAX]);
        prop::collection::vec(prop::option::of((value, prop::bool::weighted(0.1))), 3)
    }

    /// Returns true if the fast path decodes the frame, and checks the result.
    fn compare(frame: Vec<u8>, layout: ContentLayout) -> bool {
        let frame = Bytes::from(frame);
        let Ok(taken) = decode_content(frame.clone(), layout) else { return false };
        assert_eq!(Some(taken), decode_compiled(&frame, layout), "{layout:?}: {frame:?}");
        true
    }

    #[test]
    fn usual_contents_decode_as_by_compiled_messages() {
        let strategy = (
            prop::sample::select(ContentLayout::VARIANTS),
            numbers(),
            prop::collection::vec(any::<u8>(), 0..200),
            prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
            prop::option::weighted(0.1, 0u8..7),
        );
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let (cases, mut taken) = (4000, 0);
        for _ in 0..cases {
            let (layout, numbers, data, broken, more) = strategy.new_tree(&mut runner).unwrap().current();
            let mut frame = shaped(layout, &numbers, &data);
            if let Some(field) = more {
                frame.extend(number(field, 1, false));
            }
            if let Some((at, byte)) = broken {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            taken += usize::from(compare(frame, layout));
        }
        assert!(taken > cases / 10, "{taken} of {cases} were decoded");
    }

    #[test]
    fn long_mark_of_last_content_is_left_to_compiled_messages() {
        for layout in ContentLayout::VARIANTS.iter().copied() {
            let Some(bit) = usize::from(layout.facts().last).checked_sub(1) else { continue };
            for value in [1 << 32, u64::MAX] {
                let mut numbers = [Some((1, false)); 3];
                numbers[bit] = Some((value, false));
                assert!(!compare(shaped(layout, &numbers[..=bit], b"data"), layout));
            }
            assert!(compare(shaped(layout, &[Some((1, false)); 3][..=bit], b"data"), layout));
        }
    }

    proptest! {
        #[test]
        fn any_frame_decodes_as_by_compiled_messages(
            outer in 1u32..3, inner in fields(), broken in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut frame = Vec::new();
            prost::encoding::bytes::encode(outer, &inner, &mut frame);
            if let Some((at, byte)) = broken {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            let frame = Bytes::from(frame);
            for layout in ContentLayout::VARIANTS.iter().copied() {
                if let Ok(taken) = decode_content(frame.clone(), layout) {
                    prop_assert_eq!(Some(taken), decode_compiled(&frame, layout));
                }
            }
        }

        #[test]
        fn encoded_content_can_be_decoded(
            id in any::<u32>(), other in any::<u32>(), data in prop::collection::vec(any::<u8>(), 0..20_000),
        ) {
            let data = Bytes::from(data);
            for layout in ContentLayout::VARIANTS.iter().copied() {
                let two_numbers = layout.facts().addressing == Addressing::SenderAndRecipient;
                let numbers: &[u32] = if two_numbers { &[other, id] } else { &[id] };
                let frame = whole(encode_content(layout, numbers, Some(data.clone())));
                let expected = DataContent { recipient: id, last: false, data: data.clone() };
                prop_assert_eq!(decode_content(frame.clone(), layout), Ok(expected.clone()));
                prop_assert_eq!(decode_compiled(&frame, layout), Some(expected));
                // The compiled messages write the same bytes.
                let again = compiled::decode(frame.clone(), layout).unwrap().encoded;
                prop_assert!(again == frame);
            }
        }
    }
}
