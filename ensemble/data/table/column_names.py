"""Names that columns of tables of images have, in order of likelihood, in lower case and with _ between words."""

import re

# fmt: off
PATH_NAMES = ("path", "filepath", "file_path", "image_path", "img_path", "file", "filename", "file_name", "image",
              "img", "image_name", "image_file")
LABEL_NAMES = ("label", "labels", "class", "class_name", "classname", "label_name", "category", "target", "y",
               "species", "breed", "diagnosis", "ans", "answer", "cls")
ID_NAMES = ("id", "image_id", "imageid", "img_id", "sample_id", "row_id", "uid", "uuid", "key", "index")
GROUP_NAMES = ("group", "person", "subject", "patient", "participant", "people", "identity", "individual", "user",
               "scene", "session", "video", "clip", "sequence", "burst", "series", "case", "study", "animal", "donor",
               "family", "owner", "author", "artist", "painter", "photographer", "slide", "plot")
FOLD_NAMES = ("fold", "folds", "kfold", "k_fold", "fold_id", "cv_fold", "cv")
SPLIT_NAMES = ("split", "subset", "set", "partition")
KNOWN_NAMES = frozenset((*PATH_NAMES, *LABEL_NAMES, *ID_NAMES, *GROUP_NAMES, *FOLD_NAMES, *SPLIT_NAMES))
# fmt: on


def plain(name: str) -> str:
    return re.sub(r"[\s.-]+", "_", name.strip()).lower()


def rank(name: str, known: tuple[str, ...]) -> int:
    return known.index(plain(name)) if plain(name) in known else len(known)
