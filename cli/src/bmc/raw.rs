//! `rackhand bmc raw`: one command, byte by byte.

use clap::Args;
use rackhand_ipmi::{Carrier as _, CompletionCode, NetFn, Request};
use serde::Serialize;

use super::ipmi::{Access, Bmc};
use crate::{
    error::{Failure, Result},
    output::Output,
};

#[derive(Debug, Args)]
pub struct Raw {
    #[command(flatten)]
    access: Access,
    /// Network function, command and data, in hex: `06 01`. Whatever the command does, it is sent without a question.
    #[arg(required = true, num_args = 2.., value_name = "HEX", value_parser = byte)]
    bytes: Vec<u8>,
    /// Logical unit behind the BMC's address.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    lun: u8,
}

#[derive(Debug, Serialize)]
struct Report {
    completion: u8,
    data: String,
}

pub async fn run(raw: Raw, out: Output) -> Result<()> {
    let [net_fn, code, data @ ..] = raw.bytes.as_slice() else {
        return Err(Failure::Usage("a network function and a command are needed".to_owned()));
    };
    // Odd ones are answers, and there are 64.
    if net_fn % 2 != 0 || *net_fn > 0x3e {
        return Err(Failure::Usage(format!("{net_fn:#04x} is no network function of a request")));
    }
    let request = Request { net_fn: NetFn(*net_fn), code: *code, lun: raw.lun, data: data.to_vec() };
    let (completion, data) = raw
        .access
        .session(async |bmc: &Bmc| {
            let (completion, data) = bmc.client.carry(request).await.map_err(|error| bmc.failed(&error))?;
            if completion == CompletionCode::OK {
                return Ok((completion, data));
            }
            Err(Failure::Other(bmc.says(format!("the command was refused: {completion}"))))
        })
        .await?;
    let report = Report { completion: completion.0, data: hex::encode(&data) };
    out.one(&report, &report.data, || {
        if data.is_empty() {
            return "completed, without data\n".to_owned();
        }
        let bytes: Vec<String> = data.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}\n", bytes.join(" "))
    })
}

fn byte(text: &str) -> Result<u8, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u8::from_str_radix(digits, 16).map_err(|_| "a byte in hex, 00 to ff".to_owned())
}
