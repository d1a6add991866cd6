//! What a command comes to, and how its data are read.

use rackhand_ipmi::CompletionCode;
use rackhand_ipmi::wire::message::Message;

/// Data after the completion code, or the code of a refusal.
pub(super) type Answer = Result<Vec<u8>, CompletionCode>;

/// No data.
pub(super) fn done() -> Answer {
    Ok(Vec::new())
}

/// The message that answers `request`.
pub(super) fn reply(request: &Message<'_>, answer: &Answer) -> Vec<u8> {
    let (completion, data) = match answer {
        Ok(data) => (CompletionCode::OK, data.as_slice()),
        Err(completion) => (*completion, [].as_slice()),
    };
    let data = [&[completion.0], data].concat();
    let mut out = Vec::new();
    Message {
        to: request.from,
        net_fn: request.net_fn | 1,
        to_lun: request.from_lun,
        from: request.to,
        from_lun: request.to_lun,
        sequence: request.sequence,
        code: request.code,
        data: &data,
    }
    .encode(&mut out);
    out
}

/// The data of a request of exactly this length (completion code C7h otherwise).
pub(super) fn exactly<const N: usize>(data: &[u8]) -> Result<[u8; N], CompletionCode> {
    data.try_into().map_err(|_| CompletionCode::LENGTH_INVALID)
}

/// The first bytes of a request; later versions may have added more.
pub(super) fn at_least<const N: usize>(data: &[u8]) -> Result<[u8; N], CompletionCode> {
    data.first_chunk().copied().ok_or(CompletionCode::LENGTH_INVALID)
}

/// Part of a record or an area: refused beyond the limit of the BMC and beyond the end, shorter at the end.
pub(super) fn part(whole: &[u8], offset: usize, count: usize, limit: usize) -> Answer {
    if count > limit {
        return Err(CompletionCode::CANNOT_RETURN_LENGTH);
    }
    match whole.get(offset..) {
        None | Some([]) => Err(CompletionCode::OUT_OF_RANGE),
        Some(rest) => Ok(rest.get(..count).unwrap_or(rest).to_vec()),
    }
}
