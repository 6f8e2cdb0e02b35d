"""What `benchmarks/fuzz.py` damages: one class per kind of file, with good files that it makes and how they are read.

A target makes its good files once, in a folder. `attempt` damages one of them and reads it as the commands do. It
returns what is wrong: damaged content that was believed, or a result that cannot be. Errors of users are what is
expected; everything else that is raised is found by the caller.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import random
import shutil
import time
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import PIL.Image
from mutations import damage_bytes, damage_hdf5, damage_json, damage_text, damage_values, find_chunks, mend_png

from cache.support.errors import UserError
from cache.support.json_file import seal_json
from heads.runs.files import DIGESTS, write_digests

SIZE = 64
"""Side of decoded images, in pixels."""


class Target(ABC):
    """A kind of file. `prepare` is called in one process, `open` in another, and then `attempt` many times."""

    def prepare(self, folder: Path) -> None:  # noqa: B027  # some are made in memory
        """Make good files in a folder that is empty but for ``outside.h5``."""

    @abstractmethod
    def open(self, folder: Path) -> None:
        """Load the good files."""

    @abstractmethod
    def attempt(self, folder: Path, rng: random.Random) -> str:
        """Damage one file, and read it in an empty folder; returns what is wrong with the result, or an empty text.

        Raises
        ------
        UserError
            The damage was found.
        """


class Labels(Target):
    """Label files in the forms that users have."""

    ROWS = (("a1", "C0040405;C0817096"), ("a2", "C0040405"), ("a3", ""), ("b/a4", "C1306645;C0000001"))

    def open(self, folder: Path) -> None:
        rows = "".join(f"{id},{cuis}\n" for id, cuis in self.ROWS)
        long = "".join(f"{id},{cui}\n" for id, cuis in self.ROWS for cui in cuis.split(";"))
        listed = "".join(f"{id},\"['{cuis}']\"\n" for id, cuis in self.ROWS)
        texts = ["ID,CUIs\n" + rows, rows, "image;concepts\n" + rows.replace(",", ";"), "ID,CUI\n" + long,
                 "ID,CUIs\n" + listed, "ID\tCUIs\tgroup\n" + rows.replace(",", "\t"), rows * 50]  # fmt: skip
        self.seeds = [text.encode() for text in texts]

    def attempt(self, folder: Path, rng: random.Random) -> str:
        from eval.labels import read_concepts, read_ids
        from heads.data.groups import find_groups

        path = folder / rng.choice(("train_concepts.csv", "test_ids.csv", "groups.csv"))
        path.write_bytes(damage_text(rng.choice(self.seeds), rng, self.seeds))
        if path.name == "groups.csv":
            found, _ = find_groups(folder, ["a1", "a2", "a3"], [])
            return "" if found is None or found.shape == (3,) else "another number of groups"
        if path.name == "test_ids.csv":
            ids = read_ids(path)
            return "" if len(ids) == len(set(ids)) else "an id twice"
        concepts = read_concepts(path)
        return "" if all(isinstance(each, tuple) for each in concepts) and concepts.index.is_unique else "odd concepts"


class Submissions(Target):
    """Submissions, alone and in zips. A file without faults must be scored, and one that is refused must have some."""

    IDS = tuple(f"i{n:02}" for n in range(12))

    def prepare(self, folder: Path) -> None:
        rows = "".join(f"{id},C000000{n % 5 + 1};C0000009\n" for n, id in enumerate(self.IDS))
        (folder / "truth.csv").write_text("ID,CUIs\n" + rows)
        (folder / "early_truth.csv").write_text(rows.replace(",", "|"))

    def open(self, folder: Path) -> None:
        self.truth, self.early_truth = folder / "truth.csv", folder / "early_truth.csv"
        truth = self.truth.read_text()
        rows = "".join(f"{id},C000000{n % 4 + 1}\n" for n, id in enumerate(self.IDS))
        self.seeds = [text.encode() for text in ("ID,CUIs\n" + rows, rows, rows.replace(",", "|"), truth)]

    def attempt(self, folder: Path, rng: random.Random) -> str:
        from eval.faults import find_faults
        from eval.scored_file import score_files

        year, path = rng.choice((2022, 2023, 2024, 2025, 2026)), folder / "submission.csv"
        content = damage_text(rng.choice(self.seeds), rng, self.seeds)
        if rng.random() < 0.2:
            packed, path = io.BytesIO(), folder / "submission.zip"
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(rng.choice(("submission.csv", "a/submission.csv", "../submission.csv")), content)
                if rng.random() < 0.2:
                    archive.writestr("other.csv", b"0" * 3_000_000)
            data = packed.getvalue()
            content = damage_bytes(data, rng, [0, len(data) - 60]) if rng.random() < 0.6 else data
        path.write_bytes(content)
        faults, refused = None, None
        with contextlib.suppress(UserError):
            faults = find_faults(path, self.IDS, year)
        try:
            scored = score_files(path, self.early_truth if year < 2024 else self.truth, edition=year)
        except UserError as error:
            refused = error
        if faults == [] and refused:
            return f"no fault, but refused: {refused}"
        if refused is None and not 0 <= scored.primary <= 1:
            return "a score that is none"
        if refused:
            raise refused
        return ""


class Images(Target):
    """Pictures. What is damaged may still show something; what is read must be pixels."""

    def open(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        grey = np.uint8(np.add.outer(np.arange(90), np.arange(120)) + rng.integers(0, 20, (90, 120)))
        kinds: list[tuple[str, Any, dict[str, Any]]] = [
            ("JPEG", grey, {}), ("JPEG", grey, {"progressive": True}),
            ("JPEG", np.dstack([grey] * 3), {"exif": _exif()}),
            ("PNG", grey, {}), ("PNG", np.uint16(grey) * 200, {}), ("PNG", np.dstack([grey] * 4), {}),
            ("TIFF", grey, {}), ("TIFF", np.float32(grey), {}), ("TIFF", np.uint16(grey), {"compression": "tiff_lzw"}),
            ("TIFF", grey, {"compression": "jpeg"}), ("TIFF", grey > 100, {"compression": "group4"}),
            ("TIFF", grey, {"compression": "tiff_adobe_deflate"}), ("BMP", grey, {}), ("GIF", grey, {}),
            ("WEBP", np.dstack([grey] * 3), {}), ("WEBP", np.dstack([grey] * 3), {"lossless": True}),
        ]  # fmt: skip
        self.seeds = []
        for kind, values, options in kinds:
            file = io.BytesIO()
            PIL.Image.fromarray(values).save(file, kind, **options)
            self.seeds.append(file.getvalue())
        self.places = [find_chunks(seed) for seed in self.seeds]

    def attempt(self, folder: Path, rng: random.Random) -> str:
        from featurize.decoding.image import decode

        number = rng.randrange(len(self.seeds))
        data = damage_bytes(self.seeds[number], rng, self.places[number], self.seeds)
        pixels = decode(mend_png(data) if data[:4] == b"\x89PNG" and rng.random() < 0.8 else data, SIZE)
        return "" if pixels.shape == (SIZE, SIZE, 3) and pixels.dtype == np.uint8 else f"pixels {pixels.shape}"


class Dicom(Images):
    """DICOM files, damaged at the tags, types, lengths and values of their elements as much as anywhere."""

    SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
                "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90")  # fmt: skip

    def open(self, folder: Path) -> None:
        import pydicom

        values = np.uint16(np.add.outer(np.arange(64), np.arange(80)) * 20)
        self.seeds = [_dicom(values, syntax) for syntax in self.SYNTAXES]
        self.seeds += [
            _dicom(np.uint8(values // 16), self.SYNTAXES[1], frames=3),
            _dicom(np.int16(values), self.SYNTAXES[1]),
        ]
        self.places = []
        for seed in self.seeds:
            dataset = pydicom.dcmread(io.BytesIO(seed), force=True)
            tells = [element.value_tell for element in dataset.values() if hasattr(element, "value_tell")]
            self.places.append([132, *(max(tell - back, 0) for tell in tells for back in (12, 8, 4))])


class Stores(Target):
    """Finished stores. What opens and has no defect must be what was written."""

    def prepare(self, folder: Path) -> None:
        make_store(folder / "good.h5")

    def open(self, folder: Path) -> None:
        self.seed, self.rows = (folder / "good.h5").read_bytes(), _read_store(folder / "good.h5")

    def attempt(self, folder: Path, rng: random.Random) -> str:
        from cache.block_digests import append_digests
        from cache.verify import verify_store

        path = folder / "s.h5"
        forged = rng.random() < 0.25
        if forged:
            path.write_bytes(_rebuild(self.seed, rng, folder))
            append_digests(path)  # so that only what the file declares can be refused
        else:
            path.write_bytes(damage_bytes(self.seed, rng, _structure(self.seed)))
        found, defects = _read_store(path), verify_store(path)
        return "" if forged or defects or found == self.rows else "other rows, and no defect"


class Parts(Target):
    """Finished work units. What a part is read as must be what was written."""

    def prepare(self, folder: Path) -> None:
        from cache.parts import Parts as PartFiles

        parts = PartFiles(folder / "s.h5", _provenance())
        parts.start({"asked": {"weights": "random:0", "layer": ""}})
        for number in range(3):
            parts.add(_draw_rows(24 + number, number))

    def open(self, folder: Path) -> None:
        from cache.parts import Parts as PartFiles

        parts = PartFiles(folder / "s.h5", _provenance())
        self.known = {_plain(rows) for rows in parts}
        self.digests = {each.tobytes() for each in parts.digests()}
        self.seeds = {path.name: path.read_bytes() for path in sorted(parts.folder.iterdir())}

    def attempt(self, folder: Path, rng: random.Random) -> str:
        from cache.parts import Parts as PartFiles
        from cache.parts import find_unfinished

        store = folder / "s.h5"
        parts = PartFiles(store, _provenance())
        parts.folder.mkdir(parents=True, exist_ok=True)
        damaged, forged = rng.choice(sorted(self.seeds)), rng.random() < 0.2
        for name, data in self.seeds.items():
            if name != damaged:
                content = data
            elif forged and name.endswith(".part"):
                content = self._forge(data, rng)
            elif name.endswith(".json") or rng.random() < 0.2:
                content = damage_json(data.partition(b"\n")[0] if name.endswith(".part") else data, rng)
            else:
                content = damage_bytes(data, rng, list(range(0, min(len(data), 3000), 40)), [*self.seeds.values()])
            (parts.folder / name).write_bytes(content)
        find_unfinished(store)
        digests, found = {each.tobytes() for each in parts.digests()}, [_plain(rows) for rows in parts]
        if forged:
            return ""
        if not digests <= self.digests:
            return "digests that were not written"
        if set(found) <= self.known:
            if len(found) < len(self.known):
                raise UserError("a part was passed over")
            return ""
        return "rows that were not written"

    @staticmethod
    def _forge(part: bytes, rng: random.Random) -> bytes:
        """A part whose head has another content and the right digest, so that only what it declares can be refused."""
        head, _, body = part.partition(b"\n")
        return seal_json(json.loads(damage_values(json.dumps(json.loads(head)["content"]).encode(), rng))) + body


class Runs(Target):
    """Folders of finished runs, and of an ensemble. What predicts must predict as the undamaged run does."""

    HEADS = ("kernel", "knn", "logistic", "prior", "ridge")

    def prepare(self, folder: Path) -> None:
        from heads.ensembles.builder import make_ensemble
        from heads.runs.builder import fit_run

        make_data(folder)
        data = folder / "data"
        for head in self.HEADS:
            decoder = "platt+expected-f1" if head == "ridge" else "per-concept" if head == "knn" else "global"
            params = {"landmarks": 8} if head == "kernel" else {}
            fit_run(head, folder / "s.h5", data, folder / head, decoder=decoder, params=params)
        make_ensemble([folder / "ridge", folder / "knn"], folder / "both", "weighted")

    def open(self, folder: Path) -> None:
        self.folder = folder
        self.names = [*self.HEADS, "both"]
        self.expected = {name: self._predict(folder / name) for name in self.names}

    def _predict(self, run: Path) -> Any:
        from heads.ensembles.ensemble import open_predictor

        predictor = open_predictor(run, None if run.name == "both" else self.folder / "s.h5")
        return predictor.predict("test"), predictor.fallback

    def attempt(self, folder: Path, rng: random.Random) -> str:
        name = rng.choice(self.names)
        run = folder / name
        if not run.exists():
            shutil.copytree(self.folder / name, run)
        path = rng.choice([path for path in sorted(run.rglob("*")) if path.is_file()])
        good = path.read_bytes()
        try:
            forged = rng.random() < 0.3
            path.write_bytes(self._damage(path, good, rng, folder))
            if forged and path.name != DIGESTS:
                write_digests(path.parent)  # so that only what the file holds can be refused
                if path.parent != run:
                    write_digests(run)
            found = self._predict(run)
            if forged:
                return (
                    "" if all(isinstance(cui, str) for each in found[0] for cui in each) else "concepts that are none"
                )
            return "" if found == self.expected[name] else "other predictions"
        finally:
            path.write_bytes(good)
            for digests in run.rglob(DIGESTS):
                digests.write_bytes((self.folder / name / digests.relative_to(run)).read_bytes())

    @staticmethod
    def _damage(path: Path, good: bytes, rng: random.Random, folder: Path) -> bytes:
        if path.suffix == ".json":
            return damage_json(good, rng)
        if path.suffix == ".h5" and rng.random() < 0.5 and good[:4] == b"\x89HDF":
            return _rebuild(good, rng, folder)
        return damage_bytes(good, rng, _structure(good) if path.suffix == ".h5" else [0, 64])


class Memo(Target):
    """The digests that are remembered beside a store, and the facts of a network."""

    def prepare(self, folder: Path) -> None:
        from cache.network_files import NetworkFiles, find_folder

        for number in range(4):
            path = folder / f"{number}.jpg"
            path.write_bytes(bytes([number]) * 100)
            os.utime(path, (1e9, 1e9))
        time.sleep(2.1)  # a file that has just changed is not remembered
        memo = self._read(folder)
        memo.save()
        network = find_folder(folder / "s.h5")
        network.mkdir()
        (network / "front.keras").write_bytes(b"front")
        wanted = {"name": "densenet121", "weights": "random:0", "size": 224, "layer": "", "pooling": "avg",
                  "engine": "openvino", "layers": "float32", "batch": 2}  # fmt: skip
        cut = {"layer": "relu", "preprocessing": "densenet", "shape": [1024], "weights": "0" * 64, "n_weights": 5,
               "moved_from": ""}  # fmt: skip
        NetworkFiles.write(network, wanted, cut)

    @staticmethod
    def _read(folder: Path) -> Any:
        from cache.digest_memo import DigestMemo

        memo = DigestMemo(folder / "s.h5")
        for path in sorted(folder.glob("*.jpg")):
            if memo.digest(path) != hashlib.sha256(path.read_bytes()).digest():
                raise AssertionError("a wrong digest is believed")
        return memo

    def open(self, folder: Path) -> None:
        self.folder = folder
        self.memo = (folder / ".s.h5.seen.json").read_bytes()
        self.network = {path.name: path.read_bytes() for path in (folder / "s.h5.network").iterdir()}

    def attempt(self, folder: Path, rng: random.Random) -> str:
        from cache.network_files import NetworkFiles, find_folder

        if rng.random() < 0.5:
            # Each process has a memo of its own, beside links to the same files.
            for path in self.folder.glob("*.jpg"):
                if not (folder / path.name).exists():
                    os.link(path, folder / path.name)
            text = self.memo.replace(str(self.folder).encode(), str(folder).encode())
            content = text if rng.random() < 0.1 else damage_json(text, rng, [self.memo])
            (folder / ".s.h5.seen.json").write_bytes(content)
            self._read(folder).save()
            return ""
        network = find_folder(folder / "s.h5")
        network.mkdir(exist_ok=True)
        damaged = rng.choice(sorted(self.network))
        for name, data in self.network.items():
            changed = damage_json(data, rng) if name.endswith(".json") else damage_bytes(data, rng)
            (network / name).write_bytes(changed if name == damaged else data)
        found = NetworkFiles.read(folder / "s.h5")
        if not found.is_whole() or any(name not in found.files for name in ("front.keras",)):
            raise UserError("the network is damaged")
        found.check_file("front.keras")
        return "" if (network / "front.keras").read_bytes() == b"front" else "another network is believed"


class Weights(Target):
    """Files of weights in Keras' layouts. What is read must have the shapes of the network."""

    def prepare(self, folder: Path) -> None:
        model = self._build()
        model.save_weights(folder / "w.weights.h5")
        model.save(folder / "w.keras")
        with h5py.File(folder / "legacy.h5", "w") as file:  # as tf.keras 2 wrote it
            file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
            for layer in model.layers:
                group = file.create_group(layer.name)
                names = [f"{layer.name}/{each.name}:0" for each in layer.weights]
                group.attrs["weight_names"] = [name.encode() for name in names]
                for name, each in zip(names, layer.weights, strict=True):
                    values = each.numpy()
                    group.create_dataset(name, data=values, chunks=values.shape, compression="gzip")

    @staticmethod
    def _build() -> Any:
        from cache.support.keras import import_keras

        keras = import_keras()
        images = keras.Input((16, 16, 3))
        maps = keras.layers.Conv2D(4, 3, name="conv")(images)
        return keras.Model(images, keras.layers.BatchNormalization(name="bn")(maps))

    def open(self, folder: Path) -> None:
        self.model = self._build()
        self.seeds = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name[:1] in "wl"}

    def attempt(self, folder: Path, rng: random.Random) -> str:
        from featurize.layer_matching import MismatchError, read_weights
        from featurize.weights_file import check_file, open_models

        name = rng.choice(sorted(self.seeds))
        data, path = self.seeds[name], folder / name
        kind = rng.random()
        if name.endswith(".h5"):
            rebuilt = kind < 0.4
            path.write_bytes(_rebuild(data, rng, folder) if rebuilt else damage_bytes(data, rng, _structure(data)))
        elif kind < 0.5:
            path.write_bytes(damage_bytes(data, rng, [0, len(data) - 100]))
        else:
            self._pack(path, data, rng, folder)
        check_file(path)
        try:
            with open_models(path) as models:
                read_weights(self.model, models)
        except MismatchError as error:
            raise UserError(str(error).splitlines()[0]) from error
        return "" if all(np.isfinite(each).all() for each in self.model.get_weights()) else "numbers that are none"

    @staticmethod
    def _pack(path: Path, data: bytes, rng: random.Random, folder: Path) -> None:
        """An archive of which one member was damaged before it was packed."""
        with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            damaged = rng.choice(source.namelist())
            for name in source.namelist():
                content = source.read(name)
                if name == damaged:
                    is_array = name.endswith(".h5") and rng.random() < 0.5
                    content = _rebuild(content, rng, folder) if is_array else damage_bytes(content, rng)
                target.writestr(name, content)


def _exif() -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[274] = 6
    return exif


def _dicom(values: np.ndarray, syntax: str, frames: int = 1) -> bytes:
    from pydicom.dataset import Dataset, FileMetaDataset

    made = Dataset()
    made.file_meta = FileMetaDataset()
    compressed = syntax in Dicom.SYNTAXES[4:]
    made.file_meta.TransferSyntaxUID = Dicom.SYNTAXES[1] if compressed else syntax
    made.file_meta.MediaStorageSOPClassUID = made.file_meta.MediaStorageSOPInstanceUID = made.SOPClassUID = "1.2.3"
    made.Modality, made.PatientName = "CR", "A^B"
    made.Rows, made.Columns = values.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8 * values.dtype.itemsize
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(values.dtype.kind == "i")
    made.WindowCenter, made.WindowWidth, made.RescaleSlope, made.RescaleIntercept = 1000, 2000, 1, 0
    if frames > 1:
        made.NumberOfFrames = frames
    stored = values.astype(values.dtype.newbyteorder(">")) if syntax == Dicom.SYNTAXES[2] else values
    made.add_new("PixelData", "OW" if values.dtype.itemsize > 1 else "OB", stored.tobytes() * frames)
    if compressed:
        made.compress(syntax, generate_instance_uid=False)
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _provenance() -> Any:
    from cache.provenance import Provenance

    return Provenance("densenet121", "0" * 64, "relu", "avg", 224, "1", "bilinear", "densenet", "openvino", "float32")


def _draw_rows(n_images: int, seed: int = 0) -> Any:
    from cache.rows import OK, UNREADABLE, Rows

    rng = np.random.default_rng(seed)
    values, status = rng.normal(size=(n_images, 6)).astype(np.float32), np.full(n_images, OK, np.uint8)
    values[1], status[1] = np.nan, UNREADABLE
    reasons = ["", "damaged: truncated"] + [""] * (n_images - 2)
    return Rows(rng.integers(0, 256, (n_images, 32), np.uint8), status, reasons, values)


def make_data(folder: Path) -> None:
    """Make a small store ``s.h5``, and a folder ``data`` with labels."""
    rng = random.Random(0)
    make_store(folder / "s.h5")
    (folder / "data").mkdir()
    for split in ("train", "valid"):
        rows = [f"{split}_{n:02},C000000{rng.randrange(4)};C0000005\n" for n in range(24)]
        (folder / "data" / f"{split}_concepts.csv").write_text("ID,CUIs\n" + "".join(rows))


def make_store(path: Path, n_images: int = 24) -> None:
    """Make a store of three splits with drawn embeddings."""
    from cache.images import Listing
    from cache.writer import write_store

    listings, rows = {}, []
    for number, split in enumerate(("train", "valid", "test")):
        rows.append(_draw_rows(n_images, number))
        ids = [f"{split}_{n:02}" for n in range(n_images)]
        listings[split] = Listing(ids, [each.tobytes() for each in rows[-1].digests], [""] * n_images)
    record = {"asked": {"weights": "random:0", "layer": ""}, "weights_source": "random:0"}
    write_store(path, _provenance(), record, listings, rows, (6,))


def _read_store(path: Path) -> Any:
    from cache.store import FeatureStore

    store = FeatureStore(path)
    splits = {name: (split.ids, _plain(split.rows)) for name, split in store.splits.items()}
    return store.content, store.provenance, store.record, splits


def _plain(rows: Any) -> tuple[Any, ...]:
    """Rows as values that can be compared."""
    return rows.digests.tobytes(), rows.status.tobytes(), tuple(rows.reasons), np.asarray(rows.embeddings).tobytes()


def _structure(data: bytes) -> list[int]:
    """Where HDF5 describes itself: signatures of its trees, heaps and headers."""
    signatures = (b"\x89HDF", b"TREE", b"HEAP", b"SNOD", b"OHDR", b"FRHP", b"GCOL", b"\x01\x00")
    places = []
    for each in signatures:
        at = data.find(each)
        while at >= 0 and len(places) < 500:
            places.append(at)
            at = data.find(each, at + 8)
    return places


def _rebuild(data: bytes, rng: random.Random, folder: Path) -> bytes:
    """One object of an HDF5 file becomes another one; h5py may refuse what was drawn."""
    while True:
        with contextlib.suppress(ValueError, TypeError, OSError, RuntimeError, OverflowError, KeyError, MemoryError):
            return damage_hdf5(data, rng, str(folder / "outside.h5"))


TARGETS: dict[str, Callable[[], Target]] = {
    "labels": Labels,
    "submissions": Submissions,
    "images": Images,
    "dicom": Dicom,
    "stores": Stores,
    "parts": Parts,
    "runs": Runs,
    "memo": Memo,
    "weights": Weights,
}


def quiet() -> None:
    """Warnings and reports are not looked at."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


def make_outside(folder: Path) -> None:
    """The file that nothing may open."""
    with h5py.File(folder / "outside.h5", "w") as file:
        file["x"] = np.full((64, 6), 77, np.float32)
