//! From a raw byte to a number: y = L[(M·x + B·10^K1)·10^K2] (section 36.3).

use crate::wire::bytes::Reader;
use crate::{Command, Malformed, NetFn, Request};

/// How the raw byte is a number (sensor units 1, bits 7:6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnalogFormat {
    Unsigned,
    OnesComplement,
    TwosComplement,
}

impl AnalogFormat {
    /// `None` for a sensor that has no analog reading.
    pub const fn of(units_1: u8) -> Option<Self> {
        match units_1 >> 6 {
            0 => Some(Self::Unsigned),
            1 => Some(Self::OnesComplement),
            2 => Some(Self::TwosComplement),
            _ => None,
        }
    }

    /// The byte as a number, before anything is done to it.
    pub(super) fn number(self, raw: u8) -> f64 {
        match self {
            Self::Unsigned => f64::from(raw),
            // A negative number is one less than in two's complement; 0xff is minus zero.
            Self::OnesComplement if raw & 0x80 != 0 => f64::from(raw.wrapping_add(1).cast_signed()),
            Self::OnesComplement | Self::TwosComplement => f64::from(raw.cast_signed()),
        }
    }
}

/// What is done to the result (table 43-1, linearization).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Linearization {
    Linear,
    Ln,
    Log10,
    Log2,
    Exp,
    Exp10,
    Exp2,
    Inverse,
    Square,
    Cube,
    SquareRoot,
    CubeRoot,
    /// `0x70` to `0x7f`: the factors depend on the reading and are asked from the BMC.
    NonLinear,
    /// A code the table does not have; read as linear, as other clients do.
    Reserved(u8),
}

impl Linearization {
    pub const fn of(code: u8) -> Self {
        match code & 0x7f {
            0 => Self::Linear,
            1 => Self::Ln,
            2 => Self::Log10,
            3 => Self::Log2,
            4 => Self::Exp,
            5 => Self::Exp10,
            6 => Self::Exp2,
            7 => Self::Inverse,
            8 => Self::Square,
            9 => Self::Cube,
            10 => Self::SquareRoot,
            11 => Self::CubeRoot,
            0x70..=0x7f => Self::NonLinear,
            code => Self::Reserved(code),
        }
    }

    fn apply(self, x: f64) -> f64 {
        match self {
            Self::Linear | Self::NonLinear | Self::Reserved(_) => x,
            Self::Ln => x.ln(),
            Self::Log10 => x.log10(),
            Self::Log2 => x.ln() / 2_f64.ln(),
            Self::Exp => x.exp(),
            Self::Exp10 => 10_f64.powf(x),
            Self::Exp2 => 2_f64.powf(x),
            Self::Inverse => x.powf(-1.0),
            Self::Square => x.powf(2.0),
            Self::Cube => x.powf(3.0),
            Self::SquareRoot => x.sqrt(),
            Self::CubeRoot => x.cbrt(),
        }
    }
}

/// The reading factors of one sensor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Factors {
    pub format: AnalogFormat,
    pub linearization: Linearization,
    /// M, 10 bits, two's complement.
    pub multiplier: i16,
    /// B, 10 bits, two's complement.
    pub offset: i16,
    /// K1, the exponent of B, 4 bits, two's complement.
    pub offset_exponent: i8,
    /// K2, the exponent of the result, 4 bits, two's complement.
    pub result_exponent: i8,
    /// In half raw counts, 6 bits.
    pub tolerance: u8,
    /// In 1/100 percent, scaled by 10 to the power of `accuracy_exponent`.
    pub accuracy: u16,
    pub accuracy_exponent: u8,
}

impl Factors {
    /// From the six bytes "M" to "R exp, B exp", which a full sensor record and Get Sensor Reading Factors share.
    pub(crate) fn of(format: AnalogFormat, linearization: Linearization, bytes: [u8; 6]) -> Self {
        let [m, m_tolerance, b, b_accuracy, accuracy, exponents] = bytes;
        Self {
            format,
            linearization,
            multiplier: ten_bits(m, m_tolerance),
            offset: ten_bits(b, b_accuracy),
            // The nibble's sign bit goes to the top of a byte, and the shift back copies it.
            offset_exponent: (exponents << 4).cast_signed() >> 4,
            result_exponent: exponents.cast_signed() >> 4,
            tolerance: m_tolerance & 0x3f,
            accuracy: u16::from(accuracy >> 4) << 6 | u16::from(b_accuracy & 0x3f),
            accuracy_exponent: accuracy >> 2 & 0b11,
        }
    }

    /// The number a raw byte stands for; `None` where the function has no finite value there.
    pub fn convert(&self, raw: u8) -> Option<f64> {
        let offset = f64::from(self.offset) * power(self.offset_exponent);
        self.finish(f64::from(self.multiplier) * self.format.number(raw) + offset)
    }

    /// A width, such as a hysteresis: the offset has no part in it.
    pub fn convert_width(&self, raw: u8) -> Option<f64> {
        self.finish(f64::from(self.multiplier) * self.format.number(raw))
    }

    fn finish(&self, value: f64) -> Option<f64> {
        Some(self.linearization.apply(value * power(self.result_exponent))).filter(|value| value.is_finite())
    }
}

const fn ten_bits(low: u8, high: u8) -> i16 {
    // Bits 9:8 are the top of the second byte: shifted to the top of 16 bits and back, the sign comes along.
    let bits = (high as u16 & 0xc0) << 8 | (low as u16) << 6;
    bits.cast_signed() >> 6
}

/// As C's `pow(10, k)`: the nearest double, so that numbers equal those of other clients.
fn power(exponent: i8) -> f64 {
    10_f64.powf(f64::from(exponent))
}

/// Get Sensor Reading Factors (section 35.5): the factors at one reading of a non-linear sensor.
#[derive(Clone, Copy, Debug)]
pub struct GetReadingFactors {
    pub number: u8,
    pub lun: u8,
    pub raw: u8,
    pub format: AnalogFormat,
}

impl Command for GetReadingFactors {
    type Answer = Factors;

    fn request(&self) -> Request {
        Request { net_fn: NetFn::SENSOR, code: 0x23, lun: self.lun, data: vec![self.number, self.raw] }
    }

    fn parse(&self, data: &[u8]) -> Result<Factors, Malformed> {
        let mut reader = Reader::new("reading factors", data);
        let _next_reading = reader.u8()?;
        Ok(Factors::of(self.format, Linearization::NonLinear, reader.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_fields_keep_their_signs() {
        let factors =
            Factors::of(AnalogFormat::Unsigned, Linearization::Linear, [0xc1, 0xc1, 0xf4, 0x45, 0xa6, 0xd1]);
        assert_eq!((factors.multiplier, factors.offset), (-63, 500));
        assert_eq!((factors.offset_exponent, factors.result_exponent), (1, -3));
        assert_eq!((factors.tolerance, factors.accuracy, factors.accuracy_exponent), (1, 0x285, 1));
        assert_eq!(factors.convert(10), Some((-630.0 + 5000.0) * 0.001));
    }

    #[test]
    fn complements_are_read() {
        assert_eq!(AnalogFormat::OnesComplement.number(0xf6), -9.0);
        assert_eq!(AnalogFormat::OnesComplement.number(0xff), 0.0);
        assert_eq!(AnalogFormat::TwosComplement.number(0xf6), -10.0);
        assert_eq!(AnalogFormat::Unsigned.number(0xf6), 246.0);
    }

    #[test]
    fn no_finite_value_is_no_value() {
        let mut factors = Factors::of(AnalogFormat::Unsigned, Linearization::Inverse, [1, 0, 0, 0, 0, 0]);
        assert_eq!(factors.convert(0), None);
        assert_eq!(factors.convert(4), Some(0.25));
        factors.linearization = Linearization::Ln;
        assert_eq!(factors.convert(0), None);
    }

    #[test]
    fn every_linearization_of_the_table_is_known() {
        assert!((0..=11).all(|code| !matches!(Linearization::of(code), Linearization::Reserved(_))));
        assert_eq!(Linearization::of(0x70), Linearization::NonLinear);
        assert_eq!(Linearization::of(0x8b), Linearization::CubeRoot);
        assert_eq!(Linearization::of(12), Linearization::Reserved(12));
    }

    #[test]
    fn factors_of_a_reading() {
        let command = GetReadingFactors { number: 5, lun: 1, raw: 9, format: AnalogFormat::Unsigned };
        assert_eq!(command.request().data, [5, 9]);
        assert_eq!(command.parse(&[10, 2, 0, 1, 0, 0, 0]).unwrap().convert(9), Some(19.0));
        assert!(command.parse(&[10, 2, 0, 1, 0, 0]).is_err());
    }
}
