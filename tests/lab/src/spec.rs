//! What a simulated server is: its model, the components it carries and how long its work takes.
//!
//! Everything here is plain data. Versions and component ids are those a person would meet in the field, so
//! that what a client prints looks right; the component list of the R750 follows a recorded tree
//! (`UpdateService/FirmwareInventory`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A generation of Dell's BMC. Version numbers only compare within one (iDRAC10 restarted at 1.x).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    Idrac8,
    Idrac9,
    Idrac10,
}

/// A server model the lab knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    R730,
    R650,
    R750,
    R7525,
    R770,
}

impl Model {
    pub const ALL: [Self; 5] = [Self::R730, Self::R650, Self::R750, Self::R7525, Self::R770];

    /// As `ComputerSystem.Model` reports it.
    pub fn product(self) -> &'static str {
        match self {
            Self::R730 => "PowerEdge R730",
            Self::R650 => "PowerEdge R650",
            Self::R750 => "PowerEdge R750",
            Self::R7525 => "PowerEdge R7525",
            Self::R770 => "PowerEdge R770",
        }
    }

    /// Short name used in package file names.
    pub fn short(self) -> &'static str {
        match self {
            Self::R730 => "R730",
            Self::R650 => "R650",
            Self::R750 => "R750",
            Self::R7525 => "R7525",
            Self::R770 => "R770",
        }
    }

    pub fn generation(self) -> Generation {
        match self {
            Self::R730 => Generation::Idrac8,
            Self::R650 | Self::R750 | Self::R7525 => Generation::Idrac9,
            Self::R770 => Generation::Idrac10,
        }
    }

    /// As `Manager.Model` and `DellSystem.SystemGeneration` report it.
    pub fn system_generation(self) -> &'static str {
        match self {
            Self::R730 => "13G Monolithic",
            Self::R650 | Self::R750 | Self::R7525 => "15G Monolithic",
            Self::R770 => "17G Monolithic",
        }
    }

    /// BMC firmware of a server nobody has neglected: it takes an apply time where its generation knows one.
    pub fn current_idrac(self) -> &'static str {
        match self {
            Self::R730 => "2.86.86.86",
            Self::R650 => "6.10.30.00",
            Self::R750 => "6.00.30.00",
            Self::R7525 => "7.00.00.00",
            Self::R770 => "1.20.25.00",
        }
    }

    /// BMC firmware old enough that `SimpleUpdate` reboots the host by itself. iDRAC10 has none.
    pub fn old_idrac(self) -> &'static str {
        match self {
            Self::R730 => "2.63.60.61",
            Self::R650 | Self::R750 | Self::R7525 => "4.40.10.00",
            Self::R770 => "1.20.25.00",
        }
    }

    /// BIOS versions: installed at first, then the two the lab's repository offers.
    pub fn bios_versions(self) -> [&'static str; 3] {
        match self {
            Self::R730 => ["2.13.0", "2.17.0", "2.19.0"],
            Self::R650 | Self::R750 => ["1.8.2", "1.13.2", "1.15.2"],
            Self::R7525 => ["2.10.2", "2.14.1", "2.16.3"],
            Self::R770 => ["1.1.3", "1.2.6", "1.3.2"],
        }
    }

    /// The components of a server as it leaves the (simulated) factory, BMC firmware apart.
    pub fn components(self, idrac_version: &str) -> Vec<ComponentSpec> {
        let bios = self.bios_versions()[0];
        let previous_bios = match self {
            Self::R730 => "2.8.0",
            Self::R650 | Self::R750 => "1.2.4",
            Self::R7525 => "2.5.6",
            Self::R770 => "1.0.2",
        };
        let previous_idrac = match self.generation() {
            Generation::Idrac8 => "2.61.60.60",
            Generation::Idrac9 => "4.20.20.20",
            Generation::Idrac10 => "1.10.05.00",
        };
        let ocp_nic = PciTuple { vendor: 0x14e4, device: 0x16d7, subvendor: 0x14e4, subdevice: 0x4145 };
        let lom = PciTuple { vendor: 0x14e4, device: 0x165f, subvendor: 0x1028, subdevice: 0x0a6b };
        let fabric = PciTuple { vendor: 0x15b3, device: 0x101b, subvendor: 0x15b3, subdevice: 0x0009 };
        let disk = PciTuple { vendor: 0x1e0f, device: 0x0007, subvendor: 0x1028, subdevice: 0x207e };
        let mut list = vec![
            ComponentSpec::new(Kind::Bios, "159", "BIOS.Setup.1-1", "BIOS", bios).previous(previous_bios),
            ComponentSpec::new(
                Kind::Idrac,
                "25227",
                "iDRAC.Embedded.1-1",
                "Integrated Dell Remote Access Controller",
                idrac_version,
            )
            .previous(previous_idrac),
            ComponentSpec::new(
                Kind::Fixed,
                "28897",
                "USC.Embedded.1:LC.Embedded.1",
                "Lifecycle Controller",
                idrac_version,
            ),
            ComponentSpec::new(
                Kind::Diagnostics,
                "25806",
                "Diagnostics.Embedded.1:LC.Embedded.1",
                "Dell 64 Bit uEFI Diagnostics, version 4301, 4301A56, 4301.57",
                "4301A56",
            ),
            ComponentSpec::new(Kind::Cpld, "27763", "CPLD.Embedded.1", "System CPLD", "1.0.5"),
            ComponentSpec::new(Kind::Psu, "108076", "PSU.Slot.1", "Power Supply.Slot.1", "00.2A.2B"),
            ComponentSpec::new(Kind::Psu, "108076", "PSU.Slot.2", "Power Supply.Slot.2", "00.2A.2B"),
            ComponentSpec::new(
                Kind::Nic,
                "108089",
                "NIC.Integrated.1-1-1",
                "Broadcom Adv. Dual 25Gb Ethernet - 02:00:00:00:10:00",
                "21.80.16.95",
            )
            .pci(ocp_nic),
            ComponentSpec::new(
                Kind::Nic,
                "108089",
                "NIC.Integrated.1-2-1",
                "Broadcom Adv. Dual 25Gb Ethernet - 02:00:00:00:10:01",
                "21.80.16.95",
            )
            .pci(ocp_nic),
            ComponentSpec::new(
                Kind::Nic,
                "108255",
                "NIC.Embedded.1-1-1",
                "Broadcom Gigabit Ethernet BCM5720 - 02:00:00:00:20:00",
                "21.80.9",
            )
            .pci(lom),
            ComponentSpec::new(
                Kind::Nic,
                "108255",
                "NIC.Embedded.2-1-1",
                "Broadcom Gigabit Ethernet BCM5720 - 02:00:00:00:20:01",
                "21.80.9",
            )
            .pci(lom),
            ComponentSpec::new(
                Kind::Backplane,
                "107649",
                "RAID.Backplane.Firmware.1",
                "SAS Passive Backplane",
                "3.48",
            ),
        ];
        if self != Self::R730 {
            for port in ["InfiniBand.Slot.7-1", "InfiniBand.Slot.7-2"] {
                let name = "Mellanox ConnectX-6 Dual Port 10 GbE QSFP Network Adapter";
                list.push(ComponentSpec::new(Kind::Nic, "0", port, name, "20.31.10.14").pci(fabric));
            }
            for bay in 0..3 {
                let fqdd = format!("Disk.Bay.{bay}:Enclosure.Internal.0-1");
                let name = format!("PCIe SSD in Slot {bay} in Bay 1");
                list.push(ComponentSpec::new(Kind::Disk, "0", &fqdd, &name, "2.1.3").pci(disk));
            }
        }
        list
    }
}

/// A password that does not show up in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    pub fn matches(&self, given: &str) -> bool {
        self.0 == given
    }

    /// Its bytes: the key of IPMI's sessions.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

impl<S: Into<String>> From<S> for Password {
    fn from(text: S) -> Self {
        Self(text.into())
    }
}

/// What identifies a PCI device in Dell's inventory when the component id is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PciTuple {
    pub vendor: u16,
    pub device: u16,
    pub subvendor: u16,
    pub subdevice: u16,
}

/// What a component is, which decides how an update of it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Bios,
    Idrac,
    Nic,
    Psu,
    Cpld,
    Backplane,
    Disk,
    Diagnostics,
    /// Shown in the inventory, not updated by a package of its own.
    Fixed,
}

impl Kind {
    /// Direct components are flashed while the host runs; the others wait for a reboot.
    pub fn is_direct(self) -> bool {
        matches!(self, Self::Idrac | Self::Diagnostics | Self::Backplane)
    }

    /// Whether cutting the host's power in mid-flash destroys the component. The BMC has standby power.
    pub fn dies_without_power(self) -> bool {
        !matches!(self, Self::Idrac | Self::Diagnostics)
    }
}

/// One row of hardware that carries firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentSpec {
    pub kind: Kind,
    /// Dell's component id, `SoftwareId` in the inventory; `"0"` where only the PCI tuple identifies it.
    pub software_id: String,
    pub fqdd: String,
    pub name: String,
    pub version: String,
    /// The version a rollback would go to.
    pub previous: Option<String>,
    pub pci: Option<PciTuple>,
}

impl ComponentSpec {
    fn new(kind: Kind, software_id: &str, fqdd: &str, name: &str, version: &str) -> Self {
        Self {
            kind,
            software_id: software_id.to_owned(),
            fqdd: fqdd.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            previous: None,
            pci: None,
        }
    }

    fn previous(mut self, version: &str) -> Self {
        self.previous = Some(version.to_owned());
        self
    }

    fn pci(mut self, tuple: PciTuple) -> Self {
        self.pci = Some(tuple);
        self
    }
}

/// One simulated server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// Unique in the site; the name used by the control API.
    pub name: String,
    pub model: Model,
    pub idrac_version: String,
    /// Seven characters, as `ComputerSystem.SKU`.
    pub service_tag: String,
    /// Whether the host is running when the lab starts.
    pub powered_on: bool,
    /// How far the BMC's clock is off, in seconds; may be years.
    pub clock_offset_seconds: i64,
    /// What the BMC believes its time zone to be, in minutes east of UTC. Job times carry no zone.
    pub utc_offset_minutes: i32,
}

impl ServerSpec {
    /// A running server with current BMC firmware and a right clock.
    pub fn new(name: impl Into<String>, model: Model) -> Self {
        let name = name.into();
        let service_tag = service_tag(&name);
        Self {
            name,
            model,
            idrac_version: model.current_idrac().to_owned(),
            service_tag,
            powered_on: true,
            clock_offset_seconds: 0,
            utc_offset_minutes: -300,
        }
    }

    pub fn idrac(mut self, version: impl Into<String>) -> Self {
        self.idrac_version = version.into();
        self
    }

    pub fn powered_off(mut self) -> Self {
        self.powered_on = false;
        self
    }

    pub fn clock_offset(mut self, seconds: i64) -> Self {
        self.clock_offset_seconds = seconds;
        self
    }

    /// A mixed site of `count` servers of all three generations, named `bmc-01`, `bmc-02`, …; the same for
    /// the same arguments. One in six has old, self-rebooting BMC firmware, and clocks disagree.
    pub fn fleet(count: usize, seed: u64) -> Vec<Self> {
        let width = count.to_string().len().max(2);
        Model::ALL
            .into_iter()
            .cycle()
            .zip(0..count)
            .map(|(model, index)| {
                let mut server = Self::new(format!("bmc-{:0width$}", index + 1), model);
                let dice = mix(seed, index as u64);
                if index % 6 == 5 {
                    server.idrac_version = model.old_idrac().to_owned();
                }
                server.clock_offset_seconds = match dice % 5 {
                    0 => -31_536_000,
                    1 => 97,
                    2 => -3_600,
                    _ => 0,
                };
                server.utc_offset_minutes = match (dice >> 8) % 3 {
                    0 => 0,
                    1 => -300,
                    _ => 60,
                };
                server
            })
            .collect()
    }
}

/// A plausible service tag that is the same for the same name.
fn service_tag(name: &str) -> String {
    const ALPHABET: &[u8] = b"0123456789BCDFGHJKLMNPQRSTVWXYZ";
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15, |acc, byte| mix(acc, u64::from(byte)));
    (0..7)
        .filter_map(|_| {
            state = mix(state, 7);
            ALPHABET.get((state % ALPHABET.len() as u64) as usize).map(|byte| char::from(*byte))
        })
        .collect()
}

/// SplitMix64 over two words: all the randomness the lab has, so that equal seeds give equal sites.
pub(crate) fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How long things take, in simulated time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timings {
    /// From an accepted reset request to the change of `PowerState`.
    pub power_latency: Duration,
    /// An operating system shutting down when asked politely.
    pub shutdown: Duration,
    /// Power-on self test of a plain boot.
    pub post: Duration,
    /// From power-on to the Lifecycle Controller starting staged jobs.
    pub boot_to_update: Duration,
    /// Fetching and unpacking an image, at least.
    pub download: Duration,
    pub flash_bios: Duration,
    pub flash_idrac: Duration,
    pub flash_nic: Duration,
    pub flash_psu: Duration,
    pub flash_other: Duration,
    /// A plain BMC reset: unreachable for so long.
    pub bmc_reset: Duration,
    /// A BMC reset after new BMC firmware.
    pub bmc_update_reset: Duration,
    /// After a reset the web server answers, but data is not there yet.
    pub bmc_warm_up: Duration,
    /// After a reset the Lifecycle Controller is not ready yet.
    pub lc_warm_up: Duration,
    /// From an accepted update to the job's first appearance in any queue.
    pub job_visibility: Duration,
    pub read_latency: Duration,
    pub write_latency: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            power_latency: Duration::from_secs(3),
            shutdown: Duration::from_secs(60),
            post: Duration::from_secs(150),
            boot_to_update: Duration::from_secs(60),
            download: Duration::from_secs(25),
            flash_bios: Duration::from_secs(360),
            flash_idrac: Duration::from_secs(240),
            flash_nic: Duration::from_secs(180),
            flash_psu: Duration::from_secs(600),
            flash_other: Duration::from_secs(60),
            bmc_reset: Duration::from_secs(150),
            bmc_update_reset: Duration::from_secs(300),
            bmc_warm_up: Duration::from_secs(20),
            lc_warm_up: Duration::from_secs(60),
            job_visibility: Duration::from_secs(3),
            read_latency: Duration::from_millis(120),
            write_latency: Duration::from_millis(600),
        }
    }
}

impl Timings {
    pub(crate) fn flash(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Bios => self.flash_bios,
            Kind::Idrac => self.flash_idrac,
            Kind::Nic => self.flash_nic,
            Kind::Psu => self.flash_psu,
            _ => self.flash_other,
        }
    }
}
