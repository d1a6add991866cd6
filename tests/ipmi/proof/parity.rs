//! Everything that is read equals what was configured, on a hundred BMCs at once, and what ipmitool and
//! FreeIPMI print, on some of them.

use std::{sync::Arc, time::Duration};

use rackhand_ipmi::{
    Carrier,
    client::Client,
    commands::{
        chassis::{BootDevice, BootFlags, ChassisControl, GetBootFlags, GetChassisStatus, SetBootFlags},
        device::GetDeviceId,
        sdr::SdrCache,
        sensor::{Reading, Threshold, Unavailable, Value, sweep},
    },
    session::{Config, Timing},
    sockets::Sockets,
};
use rackhand_ipmi_tests::{
    Bmc, Hardware, Relay,
    hardware::{ADMINISTRATOR, Analog, Kind, Sensor},
    reference::{FreeIpmi, Ipmitool, Shown, near, same},
    relay::{Ways, Weather},
};

use crate::{
    ours::{config, connect, connect_on},
    records::Records,
};

/// What one BMC says to our client.
pub struct Read {
    pub cache: SdrCache,
    pub readings: Vec<Reading>,
}

impl Read {
    pub async fn from(carrier: &impl Carrier) -> Self {
        let mut cache = SdrCache::read(carrier, "a BMC").await.unwrap();
        cache.load_thresholds(carrier).await.unwrap();
        let readings = sweep(carrier, &cache).await;
        assert!(cache.is_current(carrier, "a BMC").await.unwrap());
        Self { cache, readings }
    }

    pub fn is_what_was_configured(&self, hardware: &Hardware) {
        assert!(self.cache.cut_short().is_none() && self.cache.bad_records().count() == 0);
        assert_eq!(self.readings.len(), hardware.sensors.len());
        for (sensor, reading) in hardware.sensors.iter().zip(&self.readings) {
            let found = &reading.sensor;
            assert_eq!((found.number, &found.name), (sensor.number, &sensor.name), "BMC {}", hardware.index);
            assert_eq!((found.sensor_type.0, found.entity.id), (sensor.sensor_type, sensor.entity));
            is_reading(sensor, reading);
        }
        let fru = self.cache.frus().next().expect("a FRU device");
        assert_eq!((fru.device, fru.name.as_str()), (0, "System Board"));
    }

    /// Values, units, thresholds and states as ipmitool prints them, in the same order.
    pub fn is_what_ipmitool_prints(&self, printed: &[(u8, Shown)]) {
        assert_eq!(self.readings.len(), printed.len());
        for (reading, (number, shown)) in self.readings.iter().zip(printed) {
            assert_eq!(reading.sensor.number, *number);
            agrees(reading, shown, same);
            match reading.value.as_ref().unwrap() {
                Value::Number { status, .. } => {
                    assert_eq!(reading.sensor.units.to_string(), shown.unit, "{shown:?}");
                    assert_eq!(status.passed == 0, shown.state == "ok", "{shown:?}, {status:?}");
                }
                Value::States { states, .. } => {
                    let count = shown.state.split(';').filter(|state| !state.is_empty()).count();
                    assert_eq!(states.iter().count(), count, "{shown:?}, {states}");
                }
                Value::Unavailable(_) => assert_eq!(shown.value, None, "{shown:?}"),
            }
        }
    }

    pub fn is_what_freeipmi_prints(&self, printed: &[Shown]) {
        assert_eq!(self.readings.len(), printed.len());
        for (reading, shown) in self.readings.iter().zip(printed) {
            agrees(reading, shown, near);
            match reading.value.as_ref().unwrap() {
                Value::Number { status, .. } => {
                    assert_eq!(short(&reading.sensor.units.to_string()), shown.unit, "{shown:?}");
                    assert_eq!(status.passed == 0, shown.state == "'OK'", "{shown:?}, {status:?}");
                }
                Value::States { states, .. } => {
                    let count =
                        if shown.state == "'OK'" { 0 } else { shown.state.matches("' '").count() + 1 };
                    assert_eq!(states.iter().count(), count, "{shown:?}, {states}");
                }
                Value::Unavailable(_) => assert_eq!(shown.value, None, "{shown:?}"),
            }
        }
    }
}

fn is_reading(sensor: &Sensor, reading: &Reading) {
    let name = &sensor.name;
    let value = reading.value.as_ref().unwrap_or_else(|error| panic!("{name}: {error}"));
    match (&sensor.kind, value) {
        (Kind::Analog(analog), Value::Number { raw, value, status }) => {
            let expected = analog.value(analog.raw);
            assert_eq!((*raw, status.passed), (analog.raw, analog.reached()), "{name}");
            assert!((value - expected).abs() <= 1e-9 * expected.abs(), "{name}: {value}, not {expected}");
            are_thresholds(analog, reading, name);
        }
        (Kind::Discrete(discrete), Value::States { states, number: None }) => {
            assert_eq!(states.bits, discrete.states, "{name}");
        }
        (Kind::Silent(_), Value::Unavailable(why)) => assert_eq!(*why, Unavailable::ScanningDisabled),
        (kind, value) => panic!("{name}: {kind:?} reads as {value:?}"),
    }
}

fn are_thresholds(analog: &Analog, reading: &Reading, name: &str) {
    for (threshold, raw) in Threshold::ALL.into_iter().zip(analog.thresholds) {
        let found = reading.sensor.thresholds.get(threshold);
        assert_eq!(found.is_some(), raw.is_some(), "{name}: {threshold:?}");
        if let (Some(found), Some(raw)) = (found, raw) {
            let expected = analog.value(raw);
            assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{name}: {found}, not {expected}");
        }
    }
}

/// Value and thresholds. Neither client unpacks 6-bit names: those are compared with what was configured
/// only.
fn agrees(reading: &Reading, shown: &Shown, equal: fn(f64, &str) -> bool) {
    if shown.name.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        assert_eq!(reading.sensor.name, shown.name);
    }
    let value = match reading.value.as_ref().unwrap() {
        Value::Number { value, .. } => Some(*value),
        _ => None,
    };
    assert!(both(value, shown.value.as_deref(), equal), "{value:?}, {shown:?}");
    for (threshold, printed) in Threshold::ALL.into_iter().zip(&shown.thresholds) {
        let found = reading.sensor.thresholds.get(threshold).filter(|_| value.is_some());
        assert!(both(found, printed.as_deref(), equal), "{threshold:?}: {found:?}, {shown:?}");
    }
}

fn both(ours: Option<f64>, printed: Option<&str>, equal: fn(f64, &str) -> bool) -> bool {
    match (ours, printed) {
        (Some(value), Some(printed)) => equal(value, printed),
        (None, None) => true,
        _ => false,
    }
}

/// FreeIPMI abbreviates units.
fn short(unit: &str) -> &str {
    match unit {
        "degrees C" => "C",
        "Volts" => "V",
        "Amps" => "A",
        "Watts" => "W",
        "gravities" => "g",
        "percent" => "%",
        other => other,
    }
}

/// Power, boot flags and identity.
pub async fn chassis_is_what_was_configured(carrier: &impl Carrier, hardware: &Hardware) {
    let status = carrier.run(&GetChassisStatus).await.unwrap();
    assert_eq!(status.power_on, hardware.on);
    let boot = carrier.run(&GetBootFlags).await.unwrap();
    let device = match hardware.boot {
        "none" => BootDevice::NoOverride,
        "pxe" => BootDevice::Network,
        "default" => BootDevice::Disk,
        "cdrom" => BootDevice::Cdrom,
        "bios" => BootDevice::Setup,
        other => panic!("no boot device {other}"),
    };
    assert_eq!((boot.device, boot.valid), (device, false));
    let device = carrier.run(&GetDeviceId).await.unwrap();
    assert_eq!((device.revision, device.firmware_major, device.firmware_minor), (3, 9, 8));
    assert_eq!((device.ipmi_version, device.manufacturer, device.product), ((2, 0), 0x1291, 0x0f02));
}

async fn session(sockets: &Arc<Sockets>, bmc: &Bmc) -> Client {
    connect_on(sockets, bmc.address(), config(ADMINISTRATOR, &bmc.hardware.password)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_bmcs_at_once_are_what_was_configured_and_what_the_reference_clients_print() {
    let fleet = Bmc::fleet(100).await;
    let sockets = Sockets::new().unwrap();
    let read = fleet.iter().map(|bmc| async {
        let client = session(&sockets, bmc).await;
        let read = (Read::from(&client).await, Records::from(&client).await);
        chassis_is_what_was_configured(&client, &bmc.hardware).await;
        client.close().await;
        read
    });
    let reads = futures::future::join_all(read).await;
    assert_eq!(sockets.count(), 1);
    for (bmc, (read, records)) in fleet.iter().zip(&reads) {
        read.is_what_was_configured(&bmc.hardware);
        records.are_what_was_configured(&bmc.hardware);
    }
    for (bmc, (read, records)) in fleet.iter().zip(&reads).step_by(17) {
        let ipmitool = Ipmitool::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
        let freeipmi = FreeIpmi::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
        read.is_what_ipmitool_prints(&ipmitool.sensors());
        read.is_what_freeipmi_prints(&freeipmi.sensors());
        records.are_what_ipmitool_prints(&ipmitool);
        records.are_what_freeipmi_prints(&freeipmi, &read.cache);
    }
}

/// Power and boot device, set by our client and read by the others, and the other way round.
#[tokio::test]
async fn power_and_boot_are_set_as_the_reference_clients_set_them() {
    let bmc = Bmc::start(Hardware::numbered(0)).await;
    let client = connect(bmc.address(), config(ADMINISTRATOR, &bmc.hardware.password)).await.unwrap();
    let ipmitool = Ipmitool::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
    let freeipmi = FreeIpmi::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
    for (control, on) in [(ChassisControl::PowerDown, false), (ChassisControl::PowerUp, true)] {
        client.run(&control).await.unwrap();
        assert_eq!((ipmitool.is_on(), freeipmi.is_on()), (on, on));
        assert_eq!(client.run(&GetChassisStatus).await.unwrap().power_on, on);
    }
    ipmitool.says(&["chassis", "power", "off"]);
    assert!(!client.run(&GetChassisStatus).await.unwrap().power_on);
    for (device, name, bits) in [
        (BootDevice::Network, "pxe", 0x04),
        (BootDevice::Cdrom, "cdrom", 0x14),
        (BootDevice::Setup, "bios", 0x18),
    ] {
        let flags = BootFlags { valid: true, persistent: false, uefi: false, device };
        client.run(&SetBootFlags(flags)).await.unwrap();
        assert_eq!(bmc.file("boot"), name);
        assert_eq!(ipmitool.raw(&[0x00, 0x09, 0x05, 0x00, 0x00])[3], bits);
    }
    // It sets the boot device, and fails later for what ipmi_sim does not know.
    ipmitool.succeeds(&["chassis", "bootdev", "disk"]);
    assert_eq!(client.run(&GetBootFlags).await.unwrap().device, BootDevice::Disk);
    client.close().await;
}

/// Commands are repeated, late and double answers ignored: what is read is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_changes_nothing_of_what_is_read() {
    let bmc = Bmc::start(Hardware::numbered(8)).await;
    let weather =
        Weather { dropped: 10, duplicated: 10, delayed: 20, delay: Duration::from_millis(60), apart: true };
    let relay = Relay::start(bmc.address(), 4, Ways::both(weather)).await;
    let patient = Timing {
        handshake_wait: Duration::from_millis(300),
        first_wait: Duration::from_millis(40),
        attempts: 10,
        window: 4,
        ..Timing::default()
    };
    let config = Config { timing: patient, ..config(ADMINISTRATOR, &bmc.hardware.password) };
    let client = connect(relay.address(), config).await.unwrap();
    Read::from(&client).await.is_what_was_configured(&bmc.hardware);
    Records::from(&client).await.are_what_was_configured(&bmc.hardware);
    let counts = relay.counts();
    assert!(counts.to_bmc.dropped > 10 && counts.to_client.dropped > 10, "{counts:?}");
    relay.set(Ways::default());
    client.close().await;
}
