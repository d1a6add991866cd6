//! The system event log that a BMC starts with, written where `ipmi_sim` keeps it, so that every byte and
//! every time stamp is known.

use std::fmt::Write as _;

/// One record, 16 bytes as Get SEL Entry gives them (section 32).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub id: u16,
    pub record: [u8; 16],
}

impl Event {
    /// Seconds since 1970 UTC, for the types that carry a time.
    pub fn time(&self) -> Option<u32> {
        let [.., kind, a, b, c, d] = self.record[..7] else { panic!("seven of sixteen") };
        (kind < 0xe0).then(|| u32::from_le_bytes([a, b, c, d]))
    }
}

/// 2026-01-02 03:04:05 UTC.
const FIRST: u32 = 1_767_323_045;

/// What BMC `index` has logged: system events of several kinds, OEM records with and without a time.
pub fn events(index: usize) -> Vec<Event> {
    let base = FIRST + 3_600 * u32::try_from(index).unwrap();
    let number = u8::try_from(index % 256).unwrap();
    let system = |after: u32, sensor_type, sensor, kind, data: [u8; 3]| {
        let [a, b, c, d] = (base + after).to_le_bytes();
        let [x, y, z] = data;
        [0, 0, 0x02, a, b, c, d, 0x20, 0x00, 0x04, sensor_type, sensor, kind, x, y, z]
    };
    let [a, b, c, d] = (base + 500).to_le_bytes();
    let mut records = vec![
        // CPU1 Temp: upper critical going high, with reading and threshold.
        system(0, 0x01, 2, 0x01, [0x59, 90, 85]),
        system(60, 0x01, 2, 0x81, [0x59, 80, 85]),
        // 12V Rail: lower non-critical going low.
        system(90, 0x02, 7, 0x01, [0x50, 188, 190]),
        // PSU1: failure, and its end.
        system(100, 0x08, 23, 0x6f, [0x01, 0xff, 0xff]),
        system(160, 0x08, 23, 0xef, [0x01, 0xff, 0xff]),
        // Chassis intrusion.
        system(200, 0x05, 25, 0x6f, [0x00, 0xff, 0xff]),
        // Redundancy lost.
        system(300, 0x08, 27, 0x0b, [0x01, 0xff, 0xff]),
        // Memory: an uncorrectable error in module 3.
        system(400, 0x0c, 0x55, 0x6f, [0xa1, 0xff, 0x03]),
        // OEM with a time, and without one.
        [0, 0, 0xc5, a, b, c, d, 0x12, 0x34, 0x00, 1, 2, 3, 4, 5, number],
        [0, 0, 0xe7, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4, 5, 6, 7, 8, number],
    ];
    // So that logs differ in length.
    let more = u32::try_from(index % 4).unwrap();
    records.extend((0..more).map(|again| system(600 + again, 0x12, 0x77, 0x6f, [0x05, 0x00, 0xff])));
    let numbered = (1_u16..).zip(records);
    numbered
        .map(|(id, mut record)| {
            record[..2].copy_from_slice(&id.to_le_bytes());
            Event { id, record }
        })
        .collect()
}

/// `ipmi_sim`'s file for these events: newest first, bytes that are not plain escaped.
pub fn stored(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events.iter().rev() {
        let _ = write!(text, "{}:d:", event.id);
        for byte in event.record {
            let _ = write!(text, "\\{byte:02x}");
        }
        text.push('\n');
    }
    let last = events.iter().filter_map(Event::time).max().unwrap_or(0);
    let _ = writeln!(text, "last_erase_time:i:0\nlast_add_time:i:{last}");
    text
}
