//! What a command is: bytes to a network function, and how its answer is read.

use std::fmt;

use zeroize::Zeroize as _;

use crate::{CompletionCode, Error, Malformed};

/// Network function of a request, even (section 5.1); its answer comes with the next odd one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetFn(pub u8);

impl NetFn {
    pub const CHASSIS: Self = Self(0x00);
    pub const SENSOR: Self = Self(0x04);
    pub const APP: Self = Self(0x06);
    pub const STORAGE: Self = Self(0x0a);
    pub const TRANSPORT: Self = Self(0x0c);
}

impl fmt::Display for NetFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CHASSIS => f.write_str("chassis"),
            Self::SENSOR => f.write_str("sensor"),
            Self::APP => f.write_str("application"),
            Self::STORAGE => f.write_str("storage"),
            Self::TRANSPORT => f.write_str("transport"),
            Self(other) => write!(f, "{other:#04x}"),
        }
    }
}

/// A request as it goes into an IPMI message. Its data may be a new password: it is wiped, and not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub net_fn: NetFn,
    pub code: u8,
    /// Logical unit behind the BMC's address, 0 to 3.
    pub lun: u8,
    pub data: Vec<u8>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { net_fn, code, lun, data } = self;
        write!(f, "Request({net_fn:?}, {code:#04x}, LUN {lun}, {} bytes)", data.len())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.data.zeroize();
    }
}

impl Request {
    /// Carrying this out twice is as good as once, so that it may be sent again when no answer comes.
    ///
    /// The others (power control, resets, appending records) are sent once: a lost answer leaves it open whether they
    /// happened, and only the caller can look.
    pub fn is_repeatable(&self) -> bool {
        !matches!(
            (self.net_fn, self.code),
            // Chassis Control and Chassis Reset; Cold Reset and Warm Reset; Add SDR, Partial Add SDR, Add SEL Entry.
            (NetFn::CHASSIS, 0x02 | 0x03) | (NetFn::APP, 0x02 | 0x03) | (NetFn::STORAGE, 0x24 | 0x25 | 0x44)
        )
    }
}

/// A command with a typed answer.
pub trait Command {
    type Answer;

    fn request(&self) -> Request;

    /// Reads the answer's data, without its completion code, which was `Ok`.
    fn parse(&self, data: &[u8]) -> Result<Self::Answer, Malformed>;
}

/// Something that carries requests to one BMC: a session, or a script in a test.
pub trait Carrier: Sync {
    /// The answer's completion code, whatever it is, and the data after it.
    fn carry(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<(CompletionCode, Vec<u8>), Error>> + Send;

    /// The typed answer; any completion code but `OK` is [`Error::Refused`].
    fn run<C: Command + Sync>(&self, command: &C) -> impl Future<Output = Result<C::Answer, Error>> + Send {
        async move {
            let request = command.request();
            let (net_fn, code) = (request.net_fn, request.code);
            let (completion, data) = self.carry(request).await?;
            if completion != CompletionCode::OK {
                return Err(Error::Refused { completion, net_fn, code });
            }
            Ok(command.parse(&data)?)
        }
    }
}
