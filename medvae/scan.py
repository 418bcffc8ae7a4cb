"""What a scan is: where its voxels lie (`Geometry`), its values (`Scan`), a scan found but not read (`ScanRef`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

Shape = tuple[int, int, int]
Modality = Literal["CT", "MR", "PT", "SHAPE"]
Units = Literal["HU", "a.u.", "BQML", "SUV", "binary"]


@dataclass(frozen=True, eq=False)
class Stored:
    """How a file writes its geometry down.

    What belongs to a scan is written the same way, so that every reader sees both at the same place, whichever entry
    of the header it uses.

    Attributes:
        unit: length of the file's unit in mm: 1 for mm, 1000 for metres, 0.001 for microns.
        rigid: 4×4, a pose without shear that the file states beside its affine (the qform of NIfTI), voxel index ->
            RAS+ mm; None if there is none, or a broken one.
        codes: what the affine and the rigid pose refer to (sform_code and qform_code of NIfTI); 0 if not stated.
        zooms: voxel size in the file's unit, with its sign, that the file states beside its affine (pixdim of NIfTI)
            where it is another; None where they agree. ITK takes it.
    """

    unit: float = 1.0
    rigid: NDArray[np.float64] | None = field(default=None, repr=False)
    codes: tuple[int, int] = (1, 1)
    zooms: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of an image lie.

    Inside medvae coordinates are RAS+ millimetres: x grows to the patient's right,
    y to the front, z to the head. LPS exists only inside the DICOM and ITK code.

    Attributes:
        shape: voxels along the three array axes, `(X, Y, Z)`.
        affine: 4×4 float64, voxel index (centre of voxel at integers) -> RAS+ mm. Shear is legal.
        stored: how the source file stores it, for the writer; not compared.
    """

    shape: Shape
    affine: NDArray[np.float64] = field(repr=False)
    stored: Stored | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4):
            raise ValueError(f"an affine is 4x4, got {affine.shape}")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"a shape has three positive lengths, got {self.shape}")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Length in mm of one step along each array axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def to_world(self, index: ArrayLike) -> NDArray[np.float64]:
        """RAS+ mm of voxel indices, `(..., 3)` -> `(..., 3)`."""
        return np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, world: ArrayLike) -> NDArray[np.float64]:
        """Voxel indices (fractional) of RAS+ mm, `(..., 3)` -> `(..., 3)`."""
        inverse = np.linalg.inv(self.affine)
        index: NDArray[np.float64] = np.asarray(world, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3]
        return index

    def corners(self) -> NDArray[np.float64]:
        """RAS+ mm of the centres of the eight corner voxels, `(8, 3)`."""
        ends = [(0, n - 1) for n in self.shape]
        return self.to_world([(x, y, z) for x in ends[0] for y in ends[1] for z in ends[2]])

    def distance_to(self, other: Geometry) -> float:
        """Largest distance in mm between corresponding corners; infinite where the shapes differ."""
        if self.shape != other.shape:
            return float("inf")
        return float(np.linalg.norm(self.corners() - other.corners(), axis=1).max())

    def __eq__(self, other: object) -> bool:
        """Same shape and the same affine to the bit. To compare files use `distance_to`."""
        if not isinstance(other, Geometry):
            return NotImplemented
        return self.shape == other.shape and bool(np.array_equal(self.affine, other.affine))

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))


@dataclass(frozen=True, eq=False)
class Scan:
    """One 3D image in memory, on its own grid and in its own axis order, exactly as stored in its file.

    Attributes:
        data: float32 `(X, Y, Z)`, in `units`.
        geometry: where the voxels lie.
        valid: bool `(X, Y, Z)`, False where a value was filled in or is padding; None if all are valid.
        modality: "CT", "MR", "PT", "SHAPE", or None if nothing says it.
        units: unit of `data`.
        warnings: what a user should know about the reading, in words.
        source: what a writer needs of the origin (e.g. DICOM identifiers). Never printed.
    """

    data: NDArray[np.float32] = field(repr=False)
    geometry: Geometry
    valid: NDArray[np.bool_] | None = field(default=None, repr=False)
    modality: Modality | None = None
    units: Units = "a.u."
    warnings: tuple[str, ...] = ()
    source: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.data.shape != self.geometry.shape:
            raise ValueError(f"data {self.data.shape} does not fit the geometry {self.geometry.shape}")
        if self.valid is not None and self.valid.shape != self.data.shape:
            raise ValueError(f"valid {self.valid.shape} does not fit the data {self.data.shape}")

    def with_data(self, data: NDArray[np.float32]) -> Scan:
        """The same scan with other values."""
        return replace(self, data=data)


@dataclass(frozen=True)
class ScanRef:
    """A scan that was found and not yet read. Cheap to make, to sort and to send to another process.

    Attributes:
        id: safe as a file name, unique within a run, free of patient identity.
        format: name of the module in `medvae.io.formats` that reads it, e.g. "nifti".
        paths: the files it consists of, in a fixed order.
        subject: who was scanned; splits are made by it. Defaults to the id.
        subject_given: whether a list or a BIDS name says so: the name may be that of the file, too.
        label: class of the scan, if a list gives one.
        label_map: file with a label per voxel, on the same grid.
        mask: file with the foreground, on the same grid.
        modality: as stated by a list or an option; the reader's own knowledge wins.
        split: name of the split that a list puts it in.
        part: which part of a mixed series it is, in words; "" for a whole one.
        frames: which of the frames of its files belong to it, counted over all files in order; () for all.
        conditions: by column, what a list says about the scan besides (age, sex, scanner, ...): a number, or a word. A
            value that is missing is not in it.
    """

    id: str
    format: str
    paths: tuple[Path, ...]
    subject: str = ""
    label: str | None = None
    label_map: Path | None = None
    mask: Path | None = None
    modality: Modality | None = None
    split: str | None = None
    part: str = ""
    frames: tuple[int, ...] = ()
    conditions: Mapping[str, float | str] = field(default_factory=dict)
    subject_given: bool = False

    def __post_init__(self) -> None:
        if not self.paths:
            raise ValueError("a ScanRef has at least one file")
        if not self.subject:
            object.__setattr__(self, "subject", self.id)

    @property
    def path(self) -> Path:
        """The first of its files."""
        return self.paths[0]

    def with_id(self, name: str) -> Self:
        """The same scan under another id; a scan of which nothing says who was scanned stays its own subject."""
        own = self.subject == self.id and not self.subject_given
        return replace(self, id=name, subject=name if own else self.subject)

    def fingerprint(self) -> str:
        """SHA-256 of everything that reading and preparing depends on, besides the settings.

        That is the contents of all its files, mask and label map included, which frames are meant, and what a list says
        of it: subject, modality and conditions. Names, places and times are not part of it: a copied or moved scan is
        the same one. Neither are label and split, which say what a scan is used for.

        Raises:
            OSError: a file cannot be read.
        """
        subject = "" if self.subject == self.id else self.subject
        said = (self.format, self.frames, subject, self.modality, sorted(self.conditions.items()))
        digest = sha256(repr(said).encode("utf-8", "backslashreplace"))
        for path in (*self.paths, self.mask, self.label_map):
            if path is None:
                digest.update(b"none")
                continue
            with open(path, "rb") as file:
                digest.update(file_digest(file, "sha256").digest())
        return digest.hexdigest()


@dataclass(frozen=True)
class Selection:
    """Which scans a run is about: where to look, and what to take from there.

    Attributes:
        inputs: directories, files, CSV, TSV or JSON lists; one path stands for itself.
        include: globs, or one glob; where there are any, a file must match one.
        exclude: globs, or one glob; a file that matches one is left out.
        split: only rows of this split of a list.
        hash_ids: ids are hashes, whatever the files are called.
    """

    inputs: tuple[Path, ...]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    split: str | None = None
    hash_ids: bool = False

    def __post_init__(self) -> None:
        for name in ("inputs", "include", "exclude"):
            given = getattr(self, name)  # a text would be a sequence of letters, and "*" among them matches everything
            several = (given,) if isinstance(given, str | Path) else tuple(given)
            object.__setattr__(self, name, tuple(map(Path, several)) if name == "inputs" else several)


@dataclass(frozen=True)
class ScanInfo:
    """What the headers alone say about a scan.

    Attributes:
        geometry: shape and affine.
        dtype: stored voxel type, e.g. "int16".
        modality: "CT", "MR", "PT" or None.
        units: unit that reading will give.
        warnings: what a user should know, in words.
        description: what the file calls itself, e.g. a DICOM SeriesDescription; "" where it says nothing.
    """

    geometry: Geometry
    dtype: str
    modality: Modality | None = None
    units: Units = "a.u."
    warnings: tuple[str, ...] = ()
    description: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels once read as float32."""
        x, y, z = self.geometry.shape
        return 4 * x * y * z


def scan_hash(scan: Scan) -> str:
    """SHA-256 of shape, affine (to 0.001 mm) and voxels, with axes nearest to R, A, S.

    The same scan is known again under another name, or with its axes turned or reversed.
    """
    from nibabel import orientations  # not at the top: listing scans does without it

    turn = orientations.io_orientation(scan.geometry.affine)
    data = orientations.apply_orientation(scan.data, turn)
    affine = scan.geometry.affine @ orientations.inv_ornt_aff(turn, scan.geometry.shape)
    affine = np.round(affine, 3) + 0.0  # −0.0 becomes 0.0
    digest = sha256(repr((data.shape, affine.tolist())).encode())
    digest.update(np.asfortranarray(data).T.data)
    return digest.hexdigest()
