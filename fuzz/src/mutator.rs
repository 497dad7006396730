//! Changes inputs message by message. Left to change bytes, a fuzzer would break
//! the length of nearly every message it touches, and hardly look behind it.

use libfuzzer_sys::fuzzer_mutate;

/// Room that one message may grow by.
const GROWTH_BYTES_MAX: usize = 64;

/// Changes `data[..size]` in place; answers the new size, at most `size_max`.
pub fn mutate(data: &mut [u8], size: usize, size_max: usize, seed: u32) -> usize {
    let messages = Messages::split(&data[..size]);
    if seed.is_multiple_of(4) || messages.bodies.is_empty() {
        return fuzzer_mutate(data, size, size_max);
    }
    let changed = messages.changed(seed / 4).join();
    if changed.len() > size_max {
        return fuzzer_mutate(data, size, size_max);
    }
    data[..changed.len()].copy_from_slice(&changed);
    changed.len()
}

/// An input's messages without their lengths, and what is left behind them.
struct Messages {
    is_framed: bool,
    bodies: Vec<Vec<u8>>,
    rest: Vec<u8>,
}

impl Messages {
    fn split(input: &[u8]) -> Self {
        let is_framed = input.first() == Some(&0);
        let (mut bodies, mut rest) = (Vec::new(), input);
        while let Some((body, behind)) = if is_framed { next_framed(rest) } else { next_counted(rest) } {
            bodies.push(body.to_vec());
            rest = behind;
        }
        Self { is_framed, bodies, rest: rest.to_vec() }
    }

    /// With one message changed, doubled, lost, or in another's place.
    fn changed(mut self, seed: u32) -> Self {
        let count = self.bodies.len();
        let one = (seed >> 3) as usize % count;
        let other = (seed >> 15) as usize % count;
        match seed % 8 {
            0 => self.bodies.swap(one, other),
            1 => self.bodies.insert(other, self.bodies[one].clone()),
            2 => drop(self.bodies.remove(one)),
            3 => self.rest.clear(),
            _ => {
                let body = &mut self.bodies[one];
                let size = body.len();
                body.resize(size + GROWTH_BYTES_MAX, 0);
                let size = fuzzer_mutate(body, size, size + GROWTH_BYTES_MAX);
                body.truncate(size);
            }
        }
        self
    }

    fn join(self) -> Vec<u8> {
        let mut joined = Vec::new();
        for body in self.bodies {
            if self.is_framed {
                joined.extend_from_slice(&(body.len() as u32).to_be_bytes());
            } else {
                joined.extend_from_slice(format!("{}\n", body.len()).as_bytes());
            }
            joined.extend_from_slice(&body);
        }
        joined.extend_from_slice(&self.rest);
        joined
    }
}

fn next_framed(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_first_chunk()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

fn next_counted(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = input.iter().position(|b| *b == b'\n')?;
    let length: usize = str::from_utf8(&input[..digits]).ok()?.parse().ok()?;
    input[digits + 1..].split_at_checked(length)
}
