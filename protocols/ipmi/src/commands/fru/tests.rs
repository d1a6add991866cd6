use std::sync::atomic::{AtomicBool, Ordering};

use super::super::Timestamp;
use super::super::fake::{Answer, FRU, Fake, Repository, lines, ok, refuse};
use super::super::sdr::SdrCache;
use super::*;
use crate::{CompletionCode, Request};

fn image() -> Vec<u8> {
    lines(FRU).remove(0)
}

/// A FRU device that gives at most `limit` bytes at once.
fn serve(image: &[u8], limit: usize, by_words: bool, request: &Request) -> Answer {
    let width = if by_words { 2 } else { 1 };
    match request.code {
        0x10 => {
            let [low, high] = u16::try_from(image.len()).unwrap().to_le_bytes();
            ok(&[low, high, u8::from(by_words)])
        }
        0x11 => {
            let [_, low, high, count] = *request.data else { panic!("{request:?}") };
            let (start, length) =
                (usize::from(u16::from_le_bytes([low, high])) * width, usize::from(count) * width);
            if length > limit {
                return refuse(CompletionCode::CANNOT_RETURN_LENGTH);
            }
            let Some(part) = image.get(start..image.len().min(start + length)) else {
                return refuse(CompletionCode::OUT_OF_RANGE);
            };
            ok(&[&[u8::try_from(part.len() / width).unwrap()], part].concat())
        }
        _ => refuse(CompletionCode::INVALID_COMMAND),
    }
}

#[tokio::test]
async fn devices_are_the_bmcs_own_and_those_of_its_records() {
    let mut repository = Repository::of_ipmi_sim();
    let mut second = repository.records.iter().find(|record| record[3] == 0x11).unwrap().clone();
    (second[0], second[6]) = (0xe0, 3);
    let mut elsewhere = second.clone();
    (elsewhere[0], elsewhere[5]) = (0xe1, 0x2c);
    repository.records.extend([second, elsewhere]);
    let cache = SdrCache::read(&Fake::new(|request| repository.answer(request)), "bmc").await.unwrap();
    let device = |id| Device { id, name: "Mainboard".to_owned() };
    assert_eq!(devices(&cache), [device(0), device(3)]);
}

/// What ipmitool printed for the same inventory.
#[test]
fn an_inventory_is_decoded() {
    let inventory = Inventory::parse(&image());
    assert_eq!(inventory.problems, []);
    let chassis = inventory.chassis.unwrap();
    assert_eq!(chassis_type_name(chassis.chassis_type), "Rack mount");
    assert_eq!((chassis.part_number.as_str(), chassis.serial.as_str()), ("CH-PART-1", "CHSER0001"));
    assert_eq!(chassis.custom, ["custom chassis"]);
    let board = inventory.board.unwrap();
    assert_eq!(Timestamp(board.manufactured.unwrap()).to_string(), "2020-09-18 18:40:00");
    assert_eq!((board.manufacturer.as_str(), board.name.as_str()), ("ACME Boards", "BOARD NAME 6"));
    assert_eq!((board.serial.as_str(), board.part_number.as_str()), ("BSER77", "123-456.7"));
    assert_eq!((board.fru_file.as_str(), board.custom), ("fru.bin", vec!["01020304".to_owned()]));
    let product = inventory.product.unwrap();
    assert_eq!((product.manufacturer.as_str(), product.name.as_str()), ("ACME", "RackBox 9000"));
    assert_eq!((product.part_number.as_str(), product.version.as_str()), ("PN-1", "v2"));
    assert_eq!((product.serial.as_str(), product.asset_tag.as_str()), ("SN 5", "tag!"));
    assert_eq!((product.fru_file.as_str(), product.custom), ("", vec!["extra".to_owned()]));
    let types: Vec<_> = inventory.records.iter().map(Multirecord::type_name).collect();
    assert_eq!(types, ["power supply", "OEM"]);
    assert_eq!(inventory.records[1].data, b"\x57\x01\x00hello");
}

#[tokio::test]
async fn an_inventory_is_read_whatever_the_limit() {
    for (limit, by_words) in [(255, false), (32, false), (7, false), (16, true), (5, true)] {
        let image = image();
        let bmc = Fake::new(|request| serve(&image, limit, by_words, request));
        assert_eq!(read(&bmc, 0).await.unwrap(), Inventory::parse(&image), "limit {limit}");
    }
}

#[tokio::test]
async fn an_empty_part_of_the_memory_is_not_read() {
    let mut image = image();
    image.resize(60_000, 0xff);
    let bmc = Fake::new(|request| serve(&image, 255, false, request));
    assert_eq!(read(&bmc, 0).await.unwrap().problems, []);
    assert!(bmc.count() < 30, "{}", bmc.count());
}

#[tokio::test(start_paused = true)]
async fn a_busy_fru_is_asked_again() {
    let (image, busy) = (image(), AtomicBool::new(false));
    let bmc = Fake::new(|request| {
        if request.code == 0x11 && busy.fetch_not(Ordering::Relaxed) {
            return refuse(CompletionCode(0x81));
        }
        serve(&image, 64, false, request)
    });
    assert_eq!(read(&bmc, 0).await.unwrap().problems, []);
}

#[tokio::test]
async fn an_area_that_cannot_be_read_hides_no_other() {
    let image = image();
    let board = usize::from(image[3]) * 8;
    let bmc = Fake::new(|request| match *request.data {
        [_, low, high, _] if (board..board + 40).contains(&usize::from(u16::from_le_bytes([low, high]))) => {
            refuse(CompletionCode::NOT_PRESENT)
        }
        _ => serve(&image, 8, false, request),
    });
    let inventory = read(&bmc, 0).await.unwrap();
    assert!(inventory.board.is_none());
    assert!(inventory.chassis.is_some() && inventory.product.is_some());
    assert_eq!(inventory.records.len(), 2);
    assert!(!inventory.problems.is_empty());
}

#[test]
fn faults_are_told_and_the_rest_is_read() {
    let good = image();
    let mut wrong = good.clone();
    wrong[7] ^= 1;
    assert_eq!(Inventory::parse(&wrong).problems, [Problem::HeaderChecksum]);
    wrong = good.clone();
    let board = usize::from(good[3]) * 8;
    wrong[board + 8] ^= 0x20;
    let inventory = Inventory::parse(&wrong);
    assert_eq!(inventory.problems, [Problem::AreaChecksum(Area::Board)]);
    assert!(inventory.board.is_some());
    // The last area is cut off.
    let inventory = Inventory::parse(&good[..usize::from(good[5]) * 8 + 2]);
    assert_eq!(inventory.problems, [Problem::Outside(Area::Multirecord)]);
    assert_eq!(Inventory::parse(&[]).problems, [Problem::NoHeader]);
    // An erased memory.
    for empty in [0xff, 0x00] {
        assert_eq!(Inventory::parse(&[empty; 256]).problems, [Problem::Empty]);
    }
}

/// Text of type 3 is UTF-16 where the area's language is not English (section 13); some areas only say so.
#[test]
fn text_is_read_as_the_language_code_says_unless_it_cannot_be() {
    let name = |language: u8, text: &[u8]| {
        let mut area = vec![1, 0, language];
        area.push(0xc0 | u8::try_from(text.len()).unwrap());
        area.extend(text);
        area.push(0xc1);
        area.resize(area.len().next_multiple_of(8).max(16), 0);
        area[1] = u8::try_from(area.len() / 8).unwrap();
        let image = [&[1, 0, 0, 0, 1, 0, 0, 0xfe], area.as_slice()].concat();
        Inventory::parse(&image).product.unwrap().manufacturer
    };
    let utf16: Vec<u8> = "服务器".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(name(31, &utf16), "服务器");
    assert_eq!(name(31, &[b'A', 0, b'B', 0]), "AB");
    assert_eq!(name(31, b"Contoso\0"), "Contoso", "a wrong language code");
    assert_eq!(name(25, b"Contos\xf6"), "Contos\u{f6}");
}
