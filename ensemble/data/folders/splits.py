"""What the name of a folder says of its part in a data set: the training images, held-out ones, or what lies beside.

A name counts only beside others of its kind, and `layout.py` looks at what the folders hold too: a class may be called
"train".
"""

import re
from collections.abc import Iterable

from ensemble.data.names import nfc

TRAIN, VALIDATION, TEST, SAMPLE, BESIDE, IMAGES = "training", "validation", "test", "sample", "beside", "images"
HELD_OUT = (TEST, VALIDATION)

# fmt: off
WORDS = {
    TRAIN: "train training trn trains trained learn learning 훈련 학습",
    VALIDATION: "val valid validation validate dev devel development eval evaluation 검증",
    TEST: "test testing tst tests pred predict prediction predictions unlabeled unlabelled unlabel holdout heldout "
          "inference query unseen 시험 테스트 평가",
    BESIDE: "mask masks segmentation segmentations annotation annotations anno annos annot label labels trimap trimaps "
            "gt groundtruth bbox bboxes boxes keypoints landmarks heatmaps saliency",
    SAMPLE: "sample samples example examples preview demo",
    IMAGES: "images image img imgs jpegimages photos pictures pics jpg jpgs jpeg png pngs frames",
}
# Words that stand beside these in the names of folders, and say nothing themselves.
FILLERS = frozenset({
    "set", "sets", "data", "dataset", "datasets", "dir", "directory", "folder", "folders", "split", "subset", "batch",
    "part", "x", "all", "full", "original", "raw", "cropped", "resized", "resize", "new", "final", "public", "private",
    "labeled", "labelled", "stage", "phase", "class", "object",
})
# fmt: on
ROLES = {word: role for role, words in WORDS.items() for word in words.split()}


def role_of(name: str) -> tuple[str | None, str]:
    """The role of a folder and what its name says besides: ("training", "") for "train_dir", ("test", "seg") for
    "seg_test"; (None, "station") for "station"."""
    words = _words(name)
    found = {ROLES[word] for word in words if word in ROLES}
    rest = "".join(word for word in words if word not in ROLES and word not in FILLERS)
    for role in (BESIDE, TEST, VALIDATION, TRAIN, SAMPLE, IMAGES):  # train_masks are masks; unlabeled_train is no train
        if role in found:
            return role, rest
    return None, rest


def roles(names: Iterable[str]) -> dict[str, str]:
    """The roles of folders that lie side by side. A name that says something else too ("seg_train", "test_tube") has a
    role only where another with the same rest has another one ("seg_test")."""
    read = {name: role_of(name) for name in names}
    of_rest: dict[str, set[str]] = {}
    for role, rest in read.values():
        if role is not None:
            of_rest.setdefault(rest, set()).add(role)
    return {name: role for name, (role, rest) in read.items() if role and (not rest or len(of_rest[rest]) > 1)}


def _words(name: str) -> list[str]:
    """ "TrainingSet_2" is training, set; "trainset" too. Numbers go."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", nfc(name))
    words = []
    for word in re.findall(r"[^\W\d_]+", spaced):
        words += _parted(word.lower())
    return words


def _parted(word: str) -> list[str]:
    if word in ROLES or word in FILLERS:
        return [word]
    for filler in ("dataset", "images", "image", "data", "sets", "set", "imgs", "img", "dir", "folder"):
        for rest in (word.removesuffix(filler), word.removeprefix(filler)):
            if rest != word and rest in ROLES:
                return [rest, filler]
    return [word]
