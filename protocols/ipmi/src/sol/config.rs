//! SOL configuration parameters (section 26, table 26-5): read only.

use std::time::Duration;

use crate::{Carrier, Command, CompletionCode, Error, Malformed, NetFn, Request};

/// Get SOL Configuration Parameters (section 26.3). Completion code 80h: the BMC does not know the parameter.
#[derive(Clone, Copy, Debug)]
pub struct GetSolParameter {
    /// 0 to 15; 14 is the channel that is asked.
    pub channel: u8,
    pub parameter: u8,
}

impl Command for GetSolParameter {
    /// The parameter's data, without its revision.
    type Answer = Vec<u8>;

    fn request(&self) -> Request {
        let data = vec![self.channel & 0x0f, self.parameter, 0, 0];
        Request { net_fn: NetFn::TRANSPORT, code: 0x22, lun: 0, data }
    }

    fn parse(&self, data: &[u8]) -> Result<Vec<u8>, Malformed> {
        match data {
            [_, value @ ..] if !value.is_empty() => Ok(value.to_vec()),
            _ => Err(Malformed { what: "Get SOL Configuration Parameters answer", why: "no data" }),
        }
    }
}

/// The settings of SOL on one channel; `None` where the BMC does not know the parameter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SolConfig {
    pub enabled: Option<bool>,
    pub force_encryption: Option<bool>,
    pub force_authentication: Option<bool>,
    /// Lowest privilege that may activate SOL: 2 user, 3 operator, 4 administrator, 5 OEM.
    pub privilege: Option<u8>,
    /// Characters wait this long for company before they are sent.
    pub accumulate: Option<Duration>,
    /// Characters after which they are sent at once.
    pub send_threshold: Option<u8>,
    pub retries: Option<u8>,
    pub retry_interval: Option<Duration>,
    /// Bits a second while SOL is active; `None` also for "as the serial port is set".
    pub bit_rate: Option<u32>,
    /// The same, as it is after the next start of the BMC.
    pub stored_bit_rate: Option<u32>,
    pub payload_channel: Option<u8>,
    pub payload_port: Option<u16>,
}

const NOT_SUPPORTED: CompletionCode = CompletionCode(0x80);

impl SolConfig {
    /// Reads every parameter that the BMC has.
    pub async fn read(carrier: &impl Carrier, channel: u8) -> Result<Self, Error> {
        let mut config = Self::default();
        for parameter in 1..=8 {
            match carrier.run(&GetSolParameter { channel, parameter }).await {
                Ok(value) => config.take(parameter, &value),
                Err(Error::Refused { completion, .. }) if unknown(completion) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(config)
    }

    fn take(&mut self, parameter: u8, value: &[u8]) {
        match (parameter, value) {
            (1, [enabled, ..]) => self.enabled = Some(enabled & 1 != 0),
            (2, [access, ..]) => {
                self.force_encryption = Some(access & 0x80 != 0);
                self.force_authentication = Some(access & 0x40 != 0);
                self.privilege = Some(access & 0x0f);
            }
            (3, [interval, threshold, ..]) => {
                self.accumulate = Some(Duration::from_millis(5 * u64::from(*interval)));
                self.send_threshold = Some(*threshold);
            }
            (4, [retries, interval, ..]) => {
                self.retries = Some(retries & 0x07);
                self.retry_interval = Some(Duration::from_millis(10 * u64::from(*interval)));
            }
            (5, [rate, ..]) => self.stored_bit_rate = bit_rate(*rate),
            (6, [rate, ..]) => self.bit_rate = bit_rate(*rate),
            (7, [channel, ..]) => self.payload_channel = Some(channel & 0x0f),
            (8, [low, high, ..]) => self.payload_port = Some(u16::from_le_bytes([*low, *high])),
            _ => {}
        }
    }
}

/// Some BMCs say with a general code that they do not have a parameter.
fn unknown(completion: CompletionCode) -> bool {
    matches!(completion, NOT_SUPPORTED | CompletionCode::OUT_OF_RANGE | CompletionCode::NOT_PRESENT)
}

fn bit_rate(code: u8) -> Option<u32> {
    match code & 0x0f {
        6 => Some(9_600),
        7 => Some(19_200),
        8 => Some(38_400),
        9 => Some(57_600),
        10 => Some(115_200),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_the_table_says() {
        let mut config = SolConfig::default();
        for (parameter, value) in
            [(1, vec![1]), (2, vec![0xc3]), (3, vec![10, 96]), (4, vec![7, 50]), (5, vec![0]), (6, vec![10])]
        {
            config.take(parameter, &value);
        }
        config.take(7, &[0xf1]);
        config.take(8, &[0x6f, 0x02]);
        config.take(3, &[1]);
        let expected = SolConfig {
            enabled: Some(true),
            force_encryption: Some(true),
            force_authentication: Some(true),
            privilege: Some(3),
            accumulate: Some(Duration::from_millis(50)),
            send_threshold: Some(96),
            retries: Some(7),
            retry_interval: Some(Duration::from_millis(500)),
            bit_rate: Some(115_200),
            stored_bit_rate: None,
            payload_channel: Some(1),
            payload_port: Some(623),
        };
        assert_eq!(config, expected);
        assert_eq!(GetSolParameter { channel: 14, parameter: 1 }.parse(&[0x11, 1]).unwrap(), [1]);
        assert!(GetSolParameter { channel: 14, parameter: 1 }.parse(&[0x11]).is_err());
    }
}
