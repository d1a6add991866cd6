//! Sensors of many kinds: linear with awkward factors, signed, linearised, 6-bit names, discrete, silent.

use std::{fmt::Write as _, path::Path};

/// How a raw reading counts (section 43.1, byte 21).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Unsigned,
    TwosComplement,
}

/// A sensor with a value: `f((m·x + b·10^b_exp)·10^r_exp)`, section 36.3.
#[derive(Clone, Debug)]
pub struct Analog {
    /// Unit code of section 43.17.
    pub unit: u8,
    pub percentage: bool,
    pub format: Format,
    /// Section 43.1, byte 24: 0 linear, 7 `1/x`, 8 `x²`, 10 `√x`.
    pub linearization: u8,
    pub m: i16,
    pub b: i16,
    pub r_exp: i8,
    pub b_exp: i8,
    pub raw: u8,
    /// Lower non-critical, critical, non-recoverable; upper the same. Raw.
    pub thresholds: [Option<u8>; 6],
}

#[derive(Clone, Debug)]
pub struct Discrete {
    /// Event/reading type of section 42.1.
    pub event_type: u8,
    /// States that are asserted, by offset.
    pub states: u16,
    /// A compact record (type 2) instead of a full one.
    pub compact: bool,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Analog(Analog),
    Discrete(Discrete),
    /// In the repository, but the BMC does not scan it: no value.
    Silent(Analog),
}

#[derive(Clone, Debug)]
pub struct Sensor {
    pub number: u8,
    pub name: String,
    /// Entity id of section 43.14; the instance is 1.
    pub entity: u8,
    /// Sensor type of section 42.2.
    pub sensor_type: u8,
    pub kind: Kind,
}

impl Analog {
    pub fn value(&self, raw: u8) -> f64 {
        let x = match self.format {
            Format::Unsigned => f64::from(raw),
            Format::TwosComplement => f64::from(raw.cast_signed()),
        };
        let b = f64::from(self.b) * 10_f64.powi(self.b_exp.into());
        let y = (f64::from(self.m) * x + b) * 10_f64.powi(self.r_exp.into());
        match self.linearization {
            0 => y,
            7 => 1.0 / y,
            8 => y * y,
            10 => y.sqrt(),
            other => panic!("no linearisation {other} here"),
        }
    }

    /// Thresholds that the reading has reached, by bit as in Get Sensor Reading (section 35.14).
    pub fn reached(&self) -> u8 {
        let reached = |(bit, threshold): (usize, &Option<u8>)| {
            threshold.is_some_and(|at| if bit < 3 { self.raw <= at } else { self.raw >= at }) as u8
                * (1 << bit)
        };
        self.thresholds.iter().enumerate().map(reached).sum()
    }

    fn mask(&self) -> String {
        self.thresholds.iter().rev().map(|at| if at.is_some() { '1' } else { '0' }).collect()
    }

    fn sdr(&self, text: &mut String) {
        let format = match self.format {
            Format::Unsigned => "unsigned",
            Format::TwosComplement => "2s_complement",
        };
        let _ = write!(
            text,
            " analog_data_format {format}\n percentage {}\n base_unit {}\n linearization {}\n m {}\n b {}\n r_exp {}\n \
             b_exp {}\n",
            self.percentage, self.unit, self.linearization, self.m, self.b, self.r_exp, self.b_exp
        );
        if self.thresholds.iter().any(Option::is_some) {
            text.push_str(" init_thresholds true\n sensor_threshold_access settable\n");
        }
        for (name, at) in ["lnc", "lc", "lnr", "unc", "uc", "unr"].iter().zip(self.thresholds) {
            if at.is_some() {
                let _ = write!(text, " {name}_thrsh_readable true\n {name}_thrsh_settable true\n");
            }
        }
    }
}

impl Sensor {
    pub fn analog(&self) -> Option<&Analog> {
        if let Kind::Analog(analog) = &self.kind { Some(analog) } else { None }
    }

    pub(super) fn sdr(&self) -> String {
        let (record, event_type) = match &self.kind {
            Kind::Discrete(discrete) => (1 + u8::from(discrete.compact), discrete.event_type),
            Kind::Analog(_) | Kind::Silent(_) => (1, 1),
        };
        let mut text = format!(
            "sdr type {record}\n sensor_owner_id 0x20\n channel_number 0\n sensor_owner_lun 0\n sensor_number {}\n \
             entity_id {}\n entity_instance 1\n init_scanning true\n init_events true\n default_sensor_scan_on true\n \
             sensor_type {}\n event_reading_type_code {event_type}\n",
            self.number, self.entity, self.sensor_type
        );
        match &self.kind {
            Kind::Analog(analog) | Kind::Silent(analog) => analog.sdr(&mut text),
            Kind::Discrete(_) => {
                for offset in 0..15 {
                    let _ = writeln!(text, " event{offset}_state_ret true");
                }
                if record == 1 {
                    text.push_str(" analog_data_format no\n");
                }
            }
        }
        let _ = writeln!(text, " id_string \"{}\"\nendsdr", self.name);
        text
    }

    /// `file`: where the reading of a sensor that changes is read from, once it exists.
    pub(super) fn write_commands(&self, commands: &mut String, file: &Path) {
        let Self { number, sensor_type, .. } = self;
        match &self.kind {
            Kind::Analog(analog) => {
                let polled = if file.exists() {
                    format!(" poll 100 file \"{}\"", file.display())
                } else {
                    String::new()
                };
                let _ = writeln!(commands, "sensor_add 0x20 0 {number} {sensor_type} 1{polled}");
                let _ = writeln!(commands, "sensor_set_value 0x20 0 {number} {} 0", analog.raw);
                if analog.thresholds.iter().any(Option::is_some) {
                    let values: Vec<_> =
                        analog.thresholds.iter().rev().map(|at| at.unwrap_or(0).to_string()).collect();
                    let _ = writeln!(
                        commands,
                        "sensor_set_threshold 0x20 0 {number} settable {} {}",
                        analog.mask(),
                        values.join(" ")
                    );
                    // Again, now that it can be compared with them.
                    let _ = writeln!(commands, "sensor_set_value 0x20 0 {number} {} 0", analog.raw ^ 1);
                    let _ = writeln!(commands, "sensor_set_value 0x20 0 {number} {} 0", analog.raw);
                }
                self.enable(commands, "enable scanning");
            }
            Kind::Silent(_) => {
                let _ = writeln!(commands, "sensor_add 0x20 0 {number} {sensor_type} 1");
                self.enable(commands, "disable no-scanning");
            }
            Kind::Discrete(discrete) => {
                let _ = writeln!(
                    commands,
                    "sensor_add 0x20 0 {number} {sensor_type} {:#04x}",
                    discrete.event_type
                );
                for offset in (0..15).filter(|offset| discrete.states & (1 << offset) != 0) {
                    let _ = writeln!(commands, "sensor_set_bit 0x20 0 {number} {offset} 1 0");
                }
                self.enable(commands, "enable scanning");
            }
        }
    }

    fn enable(&self, commands: &mut String, how: &str) {
        let none = "000000000000000";
        let _ = writeln!(
            commands,
            "sensor_set_event_support 0x20 0 {} {how} per-state {none} {none} {none} {none}",
            self.number
        );
    }
}

/// The sensors of BMC `index`: the same kinds, other readings.
pub fn catalogue(index: usize) -> Vec<Sensor> {
    let raw = |first: u8, spread: usize, step: usize| first + u8::try_from(index * step % spread).unwrap();
    let plain = Analog {
        unit: 1,
        percentage: false,
        format: Format::Unsigned,
        linearization: 0,
        m: 1,
        b: 0,
        r_exp: 0,
        b_exp: 0,
        raw: 0,
        thresholds: [None; 6],
    };
    let celsius = |raw, thresholds| Kind::Analog(Analog { raw, thresholds, ..plain.clone() });
    let volts = |(m, b, r_exp, b_exp), raw, thresholds| {
        Kind::Analog(Analog { unit: 4, m, b, r_exp, b_exp, raw, thresholds, ..plain.clone() })
    };
    let other = |unit, m, r_exp, raw| Kind::Analog(Analog { unit, m, r_exp, raw, ..plain.clone() });
    let states = |event_type, states, compact| Kind::Discrete(Discrete { event_type, states, compact });
    let hot = [None, None, None, Some(70), Some(85), Some(95)];
    let volts_12 = [Some(190), Some(180), Some(170), Some(210), Some(220), Some(230)];
    let sensors: Vec<(&str, u8, u8, Kind)> = vec![
        ("Inlet Temp", 39, 1, celsius(raw(18, 25, 3), [Some(5), Some(2), None, Some(38), Some(42), None])),
        // Over its warning on some BMCs, over critical on others.
        ("CPU1 Temp", 3, 1, celsius(raw(40, 56, 5), hot)),
        ("CPU2 Temp", 3, 1, celsius(raw(30, 70, 11), hot)),
        // Capitals only: sdrcomp packs them as 6-bit ASCII.
        ("EXHAUST", 23, 1, celsius(raw(20, 30, 7), [None; 6])),
        ("DIMM-A1", 8, 1, celsius(raw(25, 40, 3), [None, None, None, Some(80), None, None])),
        (
            "Outside",
            39,
            1,
            // −30 °C to +29 °C.
            Kind::Analog(Analog {
                format: Format::TwosComplement,
                raw: raw(0, 60, 7).wrapping_sub(30),
                ..plain.clone()
            }),
        ),
        ("12V Rail", 7, 2, volts((6, 0, -2, 0), raw(165, 70, 9), volts_12)),
        (
            "5V Rail",
            7,
            2,
            volts((24, 0, -3, 0), raw(200, 20, 3), [Some(190), None, None, Some(225), None, None]),
        ),
        ("VCORE", 3, 2, volts((49, 0, -4, 0), raw(150, 90, 13), [None; 6])),
        // (9x + 512·10¹)·10⁻³ would not fit b; −100·10² shifts the range below zero.
        ("-12V Rail", 7, 2, volts((116, -180, -3, 2), raw(20, 60, 7), [None; 6])),
        (
            "VBAT",
            40,
            2,
            volts((16, 124, -3, 1), raw(60, 60, 3), [Some(50), Some(40), None, None, None, None]),
        ),
        ("3.3V Aux", 7, 2, volts((-17, 511, -3, 1), raw(90, 50, 7), [None; 6])),
        ("Fan 1", 29, 4, other(18, 60, 0, raw(40, 100, 9))),
        ("Fan 2", 29, 4, other(18, 6, 1, raw(40, 100, 7))),
        (
            "FAN3",
            29,
            4,
            Kind::Analog(Analog {
                unit: 18,
                m: 120,
                raw: raw(5, 90, 11),
                thresholds: [Some(20), Some(10), Some(7), None, None, None],
                ..plain.clone()
            }),
        ),
        // A tachometer: revolutions per minute as the reciprocal of the time for one.
        (
            "Pump Tach",
            30,
            4,
            Kind::Analog(Analog {
                unit: 18,
                linearization: 7,
                m: 2,
                r_exp: -6,
                raw: raw(60, 120, 7),
                ..plain.clone()
            }),
        ),
        (
            "Air Flow",
            30,
            11,
            Kind::Analog(Analog { unit: 17, linearization: 10, m: 25, raw: raw(4, 200, 9), ..plain.clone() }),
        ),
        (
            "Vibration",
            7,
            11,
            Kind::Analog(Analog {
                unit: 43,
                linearization: 8,
                m: 3,
                r_exp: -2,
                raw: raw(10, 120, 7),
                ..plain.clone()
            }),
        ),
        ("System Power", 19, 11, other(6, 4, 0, raw(30, 150, 17))),
        ("PSU1 Current", 10, 3, other(5, 2, -1, raw(1, 60, 7))),
        (
            "Humidity",
            39,
            11,
            Kind::Analog(Analog {
                unit: 0,
                percentage: true,
                m: 5,
                r_exp: -1,
                raw: raw(20, 180, 7),
                ..plain.clone()
            }),
        ),
        ("GPU Temp", 11, 1, Kind::Silent(plain.clone())),
        // Presence, and on some BMCs a failure.
        ("PSU1 Status", 10, 8, states(0x6f, if index.is_multiple_of(3) { 0b11 } else { 0b01 }, false)),
        ("PSU2 Status", 10, 8, states(0x6f, 0b1001, true)),
        ("Intrusion", 23, 5, states(0x6f, u16::from(index.is_multiple_of(5)), true)),
        ("DRIVE BAY 4", 26, 13, states(0x6f, 0b0001_0000_0001, true)),
        // Generic: fully redundant, or redundancy lost.
        ("PS Redundancy", 19, 8, states(0x0b, if index.is_multiple_of(4) { 0b10 } else { 0b01 }, true)),
        ("Fan Health", 30, 10, states(0x03, u16::from(index.is_multiple_of(2)) + 1, true)),
    ];
    let numbered = (1_u8..).zip(sensors);
    numbered
        .map(|(number, (name, entity, sensor_type, kind))| Sensor {
            number,
            name: name.to_owned(),
            entity,
            sensor_type,
            kind,
        })
        .collect()
}

/// Fans to fill a larger machine.
pub fn fans(index: usize, first: u8, count: usize) -> Vec<Sensor> {
    let Kind::Analog(model) = catalogue(index).swap_remove(12).kind else { panic!("Fan 1 has a value") };
    (first..)
        .take(count)
        .map(|number| Sensor {
            number,
            name: format!("Fan {number}"),
            entity: 29,
            sensor_type: 4,
            kind: Kind::Analog(Analog { raw: number, ..model.clone() }),
        })
        .collect()
}
