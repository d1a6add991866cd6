//! BMCs for tests: a function from requests to answers, and the recorded answers of an `ipmi_sim`.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::{Carrier, CompletionCode, Error, NetFn, Request};

pub(crate) type Answer = Result<(CompletionCode, Vec<u8>), Error>;

/// Answers by a function and counts the requests.
pub(crate) struct Fake<F> {
    answer: F,
    pub(crate) requests: Mutex<Vec<Request>>,
}

impl<F: Fn(&Request) -> Answer + Send + Sync> Fake<F> {
    pub(crate) fn new(answer: F) -> Self {
        Self { answer, requests: Mutex::default() }
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

impl<F: Fn(&Request) -> Answer + Send + Sync> Carrier for Fake<F> {
    async fn carry(&self, request: Request) -> Answer {
        let answer = (self.answer)(&request);
        self.requests.lock().unwrap().push(request);
        answer
    }
}

pub(crate) fn ok(data: &[u8]) -> Answer {
    Ok((CompletionCode::OK, data.to_vec()))
}

pub(crate) fn refuse(code: CompletionCode) -> Answer {
    Ok((code, Vec::new()))
}

/// Lines of hexadecimal bytes.
pub(crate) fn lines(text: &str) -> Vec<Vec<u8>> {
    text.lines().map(|line| hex::decode(line.replace(' ', "")).unwrap()).collect()
}

pub(crate) const SDRS: &str = include_str!("../../tests/data/ipmi_sim/sdr.hex");
pub(crate) const READINGS: &str = include_str!("../../tests/data/ipmi_sim/readings.hex");
pub(crate) const THRESHOLDS: &str = include_str!("../../tests/data/ipmi_sim/thresholds.hex");
pub(crate) const SEL: &str = include_str!("../../tests/data/ipmi_sim/sel.hex");
pub(crate) const FRU: &str = include_str!("../../tests/data/ipmi_sim/fru.hex");

/// Answers by sensor number.
pub(crate) fn by_number(text: &str) -> BTreeMap<u8, Vec<u8>> {
    lines(text).into_iter().map(|line| (line[0], line[1..].to_vec())).collect()
}

/// A BMC that serves records as `ipmi_sim` does, and whose limits can be set.
pub(crate) struct Repository {
    pub(crate) records: Vec<Vec<u8>>,
    /// Most bytes of a record in one answer, and how it says so.
    pub(crate) limit: usize,
    pub(crate) over_limit: OverLimit,
    pub(crate) state: Mutex<RepositoryState>,
}

#[derive(Clone, Copy)]
pub(crate) enum OverLimit {
    Refuse(CompletionCode),
    AnswerShort,
}

#[derive(Default)]
pub(crate) struct RepositoryState {
    pub(crate) reservation: u16,
    /// Reservations that are lost at the next partial read.
    pub(crate) to_lose: u32,
    pub(crate) addition: u32,
}

impl Repository {
    pub(crate) fn new(records: Vec<Vec<u8>>) -> Self {
        let over_limit = OverLimit::Refuse(CompletionCode::CANNOT_RETURN_LENGTH);
        Self { records, limit: 255, over_limit, state: Mutex::default() }
    }

    pub(crate) fn of_ipmi_sim() -> Self {
        Self::new(lines(SDRS))
    }

    pub(crate) fn answer(&self, request: &Request) -> Answer {
        let mut state = self.state.lock().unwrap();
        match (request.net_fn, request.code) {
            (NetFn::STORAGE, 0x20) => {
                let mut info = vec![0x51];
                info.extend(u16::try_from(self.records.len()).unwrap().to_le_bytes());
                info.extend([0xff, 0xff]);
                info.extend(state.addition.to_le_bytes());
                info.extend([0, 0, 0, 0, 2]);
                ok(&info)
            }
            (NetFn::STORAGE, 0x22) => {
                state.reservation += 1;
                ok(&state.reservation.to_le_bytes())
            }
            (NetFn::STORAGE, 0x23) => {
                let [r0, r1, i0, i1, offset, count] = *request.data else { panic!("{request:?}") };
                let (offset, whole) = (usize::from(offset), count == 0xff);
                if offset > 0 && state.to_lose > 0 {
                    state.to_lose -= 1;
                    state.reservation += 1;
                }
                if offset > 0 && u16::from_le_bytes([r0, r1]) != state.reservation {
                    return refuse(CompletionCode::RESERVATION_CANCELLED);
                }
                let id = [i0, i1];
                let found = self.records.iter().position(|record| id == [0, 0] || record[..2] == id);
                let Some(index) = found else { return refuse(CompletionCode::NOT_PRESENT) };
                let record = &self.records[index];
                let next = self.records.get(index + 1).map_or([0xff, 0xff], |next| [next[0], next[1]]);
                let wanted = if whole { record.len() } else { usize::from(count) };
                if wanted > self.limit
                    && let OverLimit::Refuse(code) = self.over_limit
                {
                    return refuse(code);
                }
                let end = record.len().min(offset + wanted.min(self.limit));
                let Some(part) = record.get(offset..end).filter(|part| !part.is_empty()) else {
                    return refuse(CompletionCode::OUT_OF_RANGE);
                };
                ok(&[&next, part].concat())
            }
            _ => refuse(CompletionCode::INVALID_COMMAND),
        }
    }
}
