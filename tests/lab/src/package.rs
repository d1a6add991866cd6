//! Firmware packages of the lab: small files that say what they are, with a checksum that catches corruption.
//!
//! Layout: the magic line, one line of JSON (`PackageHeader`), filler, and the SHA-256 of all before it. A
//! BMC model identifies a package by this content, never by its name, as a real one does.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::spec::{Generation, Model, PciTuple, mix};

const MAGIC: &[u8] = b"RACKHAND-LAB-PACKAGE 1\n";
/// Large enough that an upload takes several reads, small enough to hold dozens in memory.
const FILLER: usize = 256 * 1024;

/// What a package says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageHeader {
    /// Dell's component id (`"159"` is every BIOS); `"0"` with `pci` set where only the tuple identifies it.
    pub software_id: String,
    /// Readable component name.
    pub component: String,
    pub version: String,
    pub generation: Generation,
    /// `ComputerSystem.Model` values it may be installed on.
    pub models: Vec<String>,
    pub pci: Option<PciTuple>,
}

/// Why a file is no installable package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PackageFault {
    #[error("not a firmware package")]
    NotAPackage,
    #[error("the package's checksum does not match its content")]
    Corrupt,
}

/// A package with its content.
#[derive(Clone, Debug)]
pub struct Package {
    /// Name of the file, unique in the lab.
    pub file_name: String,
    pub header: PackageHeader,
    pub bytes: Bytes,
    /// Lower-case hex SHA-256 of the whole file.
    pub sha256: String,
}

/// What the control API tells of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageInfo {
    pub file_name: String,
    /// Where the site's repository serves it.
    pub url: String,
    pub sha256: String,
    pub size: u64,
    #[serde(flatten)]
    pub header: PackageHeader,
}

impl Package {
    /// Builds a package; the same arguments give the same bytes.
    pub fn build(file_name: impl Into<String>, header: PackageHeader) -> Self {
        let file_name = file_name.into();
        let mut content = MAGIC.to_vec();
        content.extend_from_slice(serde_json::to_string(&header).unwrap_or_default().as_bytes());
        content.push(b'\n');
        let mut state = file_name.bytes().fold(1, |acc, byte| mix(acc, u64::from(byte)));
        let target = content.len() + FILLER;
        while content.len() < target {
            state = mix(state, 1);
            content.extend_from_slice(&state.to_le_bytes());
        }
        let checksum = Sha256::digest(&content);
        content.extend_from_slice(&checksum);
        let sha256 = hex::encode(Sha256::digest(&content));
        Self { file_name, header, bytes: Bytes::from(content), sha256 }
    }

    /// The same file with one bit of its filler flipped, as a bad disk or proxy would deliver it.
    pub fn corrupted(&self) -> Bytes {
        let mut content = self.bytes.to_vec();
        let middle = content.len() / 2;
        if let Some(byte) = content.get_mut(middle) {
            *byte ^= 1;
        }
        Bytes::from(content)
    }

    pub fn info(&self, base_url: &str) -> PackageInfo {
        PackageInfo {
            file_name: self.file_name.clone(),
            url: format!("{base_url}/packages/{}", self.file_name),
            sha256: self.sha256.clone(),
            size: self.bytes.len() as u64,
            header: self.header.clone(),
        }
    }

    /// What the site's repository offers: two BIOS versions for each model, and for each generation new
    /// firmware for the BMC, the network adapters, the power supplies and the diagnostics.
    pub fn repository() -> Vec<Self> {
        let mut list = Vec::new();
        for model in Model::ALL {
            for version in &model.bios_versions()[1..] {
                list.push(Self::build(
                    format!("BIOS_{}_{version}.EXE", model.short()),
                    PackageHeader {
                        software_id: "159".to_owned(),
                        component: "BIOS".to_owned(),
                        version: (*version).to_owned(),
                        generation: model.generation(),
                        models: vec![model.product().to_owned()],
                        pci: None,
                    },
                ));
            }
        }
        let fabric = PciTuple { vendor: 0x15b3, device: 0x101b, subvendor: 0x15b3, subdevice: 0x0009 };
        for (generation, tag, idrac) in [
            (Generation::Idrac8, "13G", "2.86.86.87"),
            (Generation::Idrac9, "15G", "7.10.50.10"),
            (Generation::Idrac10, "17G", "1.30.10.50"),
        ] {
            let models: Vec<String> = Model::ALL
                .into_iter()
                .filter(|model| model.generation() == generation)
                .map(|model| model.product().to_owned())
                .collect();
            for (file, id, component, version, pci) in [
                ("iDRAC-with-Lifecycle-Controller_Firmware", "25227", "iDRAC", idrac, None),
                ("Network_Firmware_BCM57414", "108089", "Broadcom 25Gb", "22.31.13.70", None),
                ("Network_Firmware_CX6", "0", "Mellanox ConnectX-6", "20.36.10.10", Some(fabric)),
                ("Power_Firmware", "108076", "Power Supply", "00.31.4B", None),
                ("Diagnostics_Application", "25806", "Diagnostics", "4301A73", None),
            ] {
                list.push(Self::build(
                    format!("{file}_{tag}_{version}.EXE"),
                    PackageHeader {
                        software_id: id.to_owned(),
                        component: component.to_owned(),
                        version: version.to_owned(),
                        generation,
                        models: models.clone(),
                        pci,
                    },
                ));
            }
        }
        list
    }
}

/// Reads a file as a BMC does.
pub fn identify(content: &[u8]) -> Result<PackageHeader, PackageFault> {
    let rest = content.strip_prefix(MAGIC).ok_or(PackageFault::NotAPackage)?;
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or(PackageFault::NotAPackage)?;
    let line = rest.get(..end).unwrap_or_default();
    let header = serde_json::from_slice(line).map_err(|_| PackageFault::NotAPackage)?;
    let (signed, checksum) = content.split_last_chunk::<32>().ok_or(PackageFault::NotAPackage)?;
    if Sha256::digest(signed).as_slice() != checksum {
        return Err(PackageFault::Corrupt);
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_identify_themselves_and_notice_corruption() {
        let all = Package::repository();
        for package in &all {
            assert_eq!(identify(&package.bytes), Ok(package.header.clone()));
            assert_eq!(identify(&package.corrupted()), Err(PackageFault::Corrupt));
        }
        assert_eq!(identify(b"MZ"), Err(PackageFault::NotAPackage));
        let mut names: Vec<_> = all.iter().map(|package| &package.file_name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
