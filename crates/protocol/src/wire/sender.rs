//! Who sent a message, as far as it can be read, for the log.

use std::str;

use crate::{AgencyId, Batch, UploadId};

/// Who sent a message, as far as the message says and can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// The agency.
    pub agency: SenderAgency,
    /// The upload that it is part of.
    pub upload: Option<UploadId>,
}

/// The agency that a message names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SenderAgency {
    /// None that could be read.
    #[default]
    Unknown,
    /// This one.
    One(AgencyId),
    /// More than one: a counted payload may have the rows of several.
    Several,
}

impl SenderAgency {
    fn and(self, agency: AgencyId) -> Self {
        match self {
            Self::Unknown => Self::One(agency),
            Self::One(known) if known == agency => self,
            _ => Self::Several,
        }
    }
}

impl FromIterator<AgencyId> for SenderAgency {
    fn from_iter<I: IntoIterator<Item = AgencyId>>(agencies: I) -> Self {
        agencies.into_iter().fold(Self::Unknown, Self::and)
    }
}

impl Sender {
    /// Returns the sender of these batches.
    pub fn of_batches(batches: &[Batch]) -> Self {
        let position = batches.first().and_then(|batch| batch.position.as_ref());
        Self {
            agency: batches.iter().map(|batch| batch.agency).collect(),
            upload: position.map(|position| position.upload.clone()),
        }
    }

    /// Returns the sender of a framed request, which need not be well-formed.
    pub(super) fn of_frame(frame: &[u8]) -> Self {
        let mut fields = frame.split(|b| *b == b'|').map(|field| str::from_utf8(field).unwrap_or(""));
        let upload_at = match fields.next() {
            Some("BATCH") => Some(1),
            Some("RESUME") => Some(0),
            Some("BET" | "DONE" | "GET_WINNERS" | "WAIT_WINNERS" | "AUTH") => None,
            _ => return Self::default(),
        };
        Self {
            agency: fields.next().and_then(|agency| agency.parse().ok()).into_iter().collect(),
            upload: upload_at.and_then(|at| fields.nth(at)).and_then(UploadId::new),
        }
    }

    /// Returns the sender of a counted payload, which need not be well-formed: the last
    /// field of each line is an agency's number.
    pub(super) fn of_payload(payload: &[u8]) -> Self {
        let agency = |line: &[u8]| -> Option<AgencyId> {
            let field = line.rsplit(|b| *b == b'|').next()?;
            str::from_utf8(field).ok()?.trim_end().parse().ok()
        };
        let agencies = payload.split(|b| *b == b'\n').filter_map(agency);
        Self { agency: agencies.collect(), upload: None }
    }
}

#[cfg(test)]
mod tests {
    use super::SenderAgency::{One, Several, Unknown};
    use super::*;

    #[test]
    fn a_request_names_its_sender_however_wrong_the_rest_is() {
        let one = One(AgencyId(7));
        for (frame, agency, upload) in [
            ("BATCH|7|x|up.1|y", one, Some("up.1")),
            ("BATCH|7|2", one, None),
            ("BATCH|x|2|up|0", Unknown, Some("up")),
            ("BATCH|7|2|no name|0", one, None),
            ("RESUME|7|up", one, Some("up")),
            ("DONE|7|x|y|z", one, None),
            ("BET|07|Ana", one, None),
            ("STATUS|7", Unknown, None),
            ("HELO|7", Unknown, None),
            ("", Unknown, None),
        ] {
            let upload = upload.and_then(UploadId::new);
            assert_eq!(Sender::of_frame(frame.as_bytes()), Sender { agency, upload }, "{frame}");
        }
        for (payload, agency) in [
            ("Ana|Paz|1|x|1|7\nAna|7\r\n", one),
            ("Ana|Paz|1|x|1|7\nAna|Paz|1|x|1|8\n", Several),
            ("GET_WINNERS|7", one),
            ("\u{1}|x", Unknown),
            ("", Unknown),
        ] {
            assert_eq!(Sender::of_payload(payload.as_bytes()).agency, agency, "{payload}");
        }
        assert_eq!(Sender::of_frame(b"BET|7|\xff"), Sender { agency: one, upload: None });
    }
}
