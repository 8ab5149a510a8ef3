//! A client of the path relay: whatever it sends comes out at the other end.

use super::{Act, Client, Frame, Heard, Id, parcel};
use crate::compat::parcel::{Got, Parcel, Shape};

/// The client. That it is let in tells it all there is to know.
#[derive(Debug)]
pub struct Relay;

impl Client for Relay {
    fn opened(&mut self, _first: Option<&Parcel>) -> Vec<Act> {
        vec![Act::Hear(Heard::Bound)]
    }

    fn text(&mut self, text: &str) -> Vec<Act> {
        parcel(None, Got::of_bytes(text.as_bytes()))
    }

    fn binary(&mut self, bytes: &[u8]) -> Vec<Act> {
        parcel(None, Got::of_bytes(bytes))
    }

    fn say(&mut self, _to: Option<&Id>, parcel: &Parcel) -> Option<Frame> {
        match parcel.shape {
            Shape::Offer | Shape::Answer | Shape::Candidate | Shape::Json => {
                String::from_utf8(parcel.bytes()).ok().map(Frame::Text)
            }
            Shape::Bytes => Some(Frame::Binary(parcel.bytes())),
        }
    }
}
