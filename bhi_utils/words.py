"""What is said about an input, in English and in Spanish: one place for both, so that no sentence exists in one language only.

Used by ``quality``, ``scope``, ``regions`` and ``calibration``, which say it in English, and by the interface, which says it in the
reader's language. A `Sentence` is its English text and remembers what it was made of. `filled` and `counted` make words agree with a count.
"""

import re
from typing import Any

LANGUAGES = ("en", "es")

_SIZES = "{width}×{height}"
_PNG = "export it as an 8-bit RGB PNG"
_COMO_PNG = "expórtela como PNG RGB de 8 bits"
_REGION = "an image of up to 10,000×10,000 pixels goes whole to the tab Region, or to `bhi map`"
_COMO_REGION = "una imagen de hasta 10 000×10 000 píxeles va entera a la pestaña Región, o a `bhi map`"
_ARCHIVE = "archive's scale, about 4 µm a pixel"
_ARCHIVO = "escala del archivo, unos 4 µm por píxel"

#: Key to the sentence in the order of `LANGUAGES`.
SENTENCES: dict[str, tuple[str, str]] = {
    "not_an_image": (
        "This file is not an image that can be read: send a PNG, JPEG, TIFF, BMP, GIF or WEBP file.",
        "Este archivo no es una imagen que se pueda leer: envíe un archivo PNG, JPEG, TIFF, BMP, GIF o WEBP.",
    ),
    "other_format": (
        f"This is a {{kind}} file, which is not read here: {_PNG}.",
        f"Esta imagen es {{kind}}, un formato que aquí no se lee: {_COMO_PNG}.",
    ),
    "tiff_float": (
        f"This TIFF holds floating-point numbers in several channels, whose range is unknown: {_PNG}.",
        f"Esta imagen TIFF guarda números de coma flotante en varios canales, cuyo intervalo se desconoce: {_COMO_PNG}.",
    ),
    "tiff_jpeg2000": (
        f"This TIFF is compressed as JPEG 2000, which is not read here: {_PNG}, or save the TIFF without compression.",
        f"Esta imagen TIFF está comprimida como JPEG 2000, que aquí no se lee: {_COMO_PNG}, o guárdela como TIFF sin compresión.",
    ),
    "tiff_other": (
        f"This kind of TIFF (compression {{compression}}, {{bits}} bits a channel) is not read here: {_PNG}.",
        f"Este tipo de TIFF (compresión {{compression}}, {{bits}} bits por canal) aquí no se lee: {_COMO_PNG}.",
    ),
    "zip": (
        "This is a zip and not an image: send it by itself in the tab Files, or pass it to `bhi predict`; both answer for its patches.",
        "Esto es un zip y no una imagen: envíelo solo en la pestaña Archivos, o páselo a `bhi predict`, que responde a sus parches.",
    ),
    "damaged_zip": (
        "This zip is damaged or cut short: make it anew, or send its files one by one.",
        "Este zip está dañado o incompleto: hágalo de nuevo, o envíe sus archivos uno por uno.",
    ),
    "nothing_inside": ("There is no file in this that is not hidden.", "Aquí no hay ningún archivo que no esté oculto."),
    "damaged": (
        "This image is damaged or cut short and cannot be decoded: send the file again, or export it anew as PNG.",
        "Esta imagen está dañada o incompleta y no se puede descodificar: envíe el archivo otra vez o expórtelo de nuevo como PNG.",
    ),
    "too_large": (
        f"This image is too large to open here ({{what}} pixels): crop a patch of 50×50 pixels at the {_ARCHIVE}, and send that; "
        f"{_REGION}.",
        f"Esta imagen es demasiado grande para abrirla aquí ({{what}} píxeles): recorte un parche de 50×50 píxeles a la {_ARCHIVO}, y "
        f"envíelo; {_COMO_REGION}.",
    ),
    "far_too_large": (
        f"This image is too large to open here (far more pixels than a patch): crop a patch of 50×50 pixels at the {_ARCHIVE}, and send "
        f"that; {_REGION}.",
        f"Esta imagen es demasiado grande para abrirla aquí (muchos más píxeles que un parche): recorte un parche de 50×50 píxeles a la "
        f"{_ARCHIVO}, y envíelo; {_COMO_REGION}.",
    ),
    "too_small": (
        f"This image is {_SIZES} pixels, too small to tell anything: send a patch of 50×50 pixels, with no side under 10.",
        f"Esta imagen tiene {_SIZES} píxeles, muy pocos para decir algo: envíe un parche de 50×50 píxeles, sin ningún lado menor de 10.",
    ),
    "no_patch": (
        f"This image is {_SIZES} pixels, but the model reads one patch of 50×50 pixels at the {_ARCHIVE}: crop a 50×50 part and send "
        "that; nothing is resized.",
        f"Esta imagen tiene {_SIZES} píxeles, pero el modelo lee un parche de 50×50 píxeles a la {_ARCHIVO}: recorte una parte de 50×50 "
        "y envíela; nada se cambia de tamaño.",
    ),
    "no_patch_but_region": (
        f"This image is {_SIZES} pixels, but the model reads one patch of 50×50 pixels at the {_ARCHIVE}: crop a 50×50 part and send that "
        f"(nothing is resized); {_REGION}.",
        f"Esta imagen tiene {_SIZES} píxeles, pero el modelo lee un parche de 50×50 píxeles a la {_ARCHIVO}: recorte una parte de 50×50 y "
        f"envíela (nada se cambia de tamaño); {_COMO_REGION}.",
    ),
    "bits": (
        "This image stores 32 bits a channel, whose range is unknown: export it as an 8-bit RGB PNG.",
        "Esta imagen guarda 32 bits por canal, cuyo intervalo se desconoce: expórtela como PNG RGB de 8 bits.",
    ),
    "region_too_large": (
        f"This image is {_SIZES} pixels, and a region has at most 10,000×10,000: crop it, at the {_ARCHIVE}.",
        f"Esta imagen tiene {_SIZES} píxeles, y una región tiene como máximo 10 000×10 000: recórtela, a la {_ARCHIVO}.",
    ),
    "region_far_too_large": (
        f"This image has far more pixels than a region's 10,000×10,000: crop it, at the {_ARCHIVE}.",
        f"Esta imagen tiene muchos más píxeles que los 10 000×10 000 de una región: recórtela, a la {_ARCHIVO}.",
    ),
    "region_too_small": (
        f"This image is {_SIZES} pixels, smaller than one patch of 50×50: send a larger region, or the patch alone.",
        f"Esta imagen tiene {_SIZES} píxeles, menos que un parche de 50×50: envíe una región mayor, o el parche solo.",
    ),
    "no_tissue": (
        "There is no tissue in this image, only background: send a region with stained tissue.",
        "No hay tejido en esta imagen, solo fondo: envíe una región con tejido teñido.",
    ),
    "empty_file": ("This file is empty: send it again.", "Este archivo está vacío: envíelo otra vez."),
    "too_long": (
        "This file is longer than 64 MB, too long for a patch: send a patch of 50×50 pixels.",
        "Este archivo ocupa más de 64 MB, demasiado para un parche: envíe un parche de 50×50 píxeles.",
    ),
    "unreadable": (
        "This file cannot be read: check that it is whole, without a password, and that it may be opened.",
        "Este archivo no se puede leer: compruebe que está entero, sin contraseña y con permiso de lectura.",
    ),
    "frames": (
        "The file holds {frames} images; only the first is used.",
        "El archivo contiene {frames} imágenes; solo se usa la primera.",
    ),
    "frames_largest": (
        "The file holds {frames} images; only the largest, number {number}, is used.",
        "El archivo contiene {frames} imágenes; solo se usa la mayor, la número {number}.",
    ),
    "turned": (
        "The image is turned upright as its EXIF data asks.",
        "La imagen se gira como piden sus datos EXIF.",
    ),
    "sixteen": ("The 16-bit values are brought to 8 bits.", "Los valores de 16 bits se reducen a 8 bits."),
    "transparent": ("Transparent parts are laid on white.", "Las partes transparentes se ponen sobre blanco."),
    "cmyk": (
        "The print colours (CMYK) are converted to RGB without a profile, so the stain may look off.",
        "Los colores de imprenta (CMYK) se convierten a RGB sin perfil, así que la tinción puede verse alterada.",
    ),
    "padded": (
        f"The image is {_SIZES} pixels, so it is filled up with white to 50×50.",
        f"La imagen tiene {_SIZES} píxeles, así que se completa con blanco hasta 50×50.",
    ),
    "glass": (
        "Almost all of the patch is empty glass; the answer says little.",
        "Casi todo el parche es vidrio vacío; la respuesta dice poco.",
    ),
    "grey": (
        "The image is grey, without haematoxylin and eosin; the model has never seen such a patch.",
        "La imagen es gris, sin hematoxilina ni eosina; el modelo nunca ha visto un parche así.",
    ),
    "colours": (
        "Its colours are not those of haematoxylin and eosin, which leave green the darkest channel nearly everywhere: it may be a "
        "photograph, ink or another stain.",
        "Sus colores no son los de la hematoxilina y la eosina, que dejan el verde como canal más oscuro casi en todas partes: puede ser "
        "una fotografía, tinta u otra tinción.",
    ),
    "swapped": (
        "Its red and blue look swapped, as when a program writes BGR for RGB: haematoxylin and eosin leave more red than blue. Swap them "
        "and send it again.",
        "Su rojo y su azul parecen intercambiados, como cuando un programa escribe BGR en vez de RGB: la hematoxilina y la eosina dejan "
        "más rojo que azul. Intercámbielos y envíela otra vez.",
    ),
    "eyepiece": (
        "It is a round bright field on black, as through an eyepiece: crop a rectangle from inside the field, and send that.",
        "Es un campo redondo y claro sobre negro, como a través de un ocular: recorte un rectángulo del interior del campo y envíelo.",
    ),
    "plain": (
        "It is nearly one single colour, without any structure of tissue.",
        "Es casi de un solo color, sin ninguna estructura de tejido.",
    ),
    "blurred": (
        "It is blurred, or was enlarged from another scale: its finest detail is far below that of patches at the archive's scale.",
        "Está borrosa, o se amplió desde otra escala: su detalle más fino queda muy por debajo del de los parches a la escala del archivo.",
    ),
    "dark": (
        "It is far darker than stained tissue under a microscope's light.",
        "Es mucho más oscura que el tejido teñido bajo la luz de un microscopio.",
    ),
    # how a calibration is described, by its method
    "temperature": ("temperature scaling: temperature {temperature:.4f}", "escalado por temperatura: temperatura {temperature:.4f}"),
    "platt": ("Platt: slope {slope:.4f}, intercept {intercept:.4f}", "Platt: pendiente {slope:.4f}, ordenada {intercept:.4f}"),
    "isotonic": ("isotonic regression: {knots} [knot|knots:knots]", "regresión isotónica: {knots} [nudo|nudos:knots]"),
    "mostly_strange": (
        "{share:.0%} of the tissue in this image does not look like haematoxylin and eosin at this scale, mostly for this reason: {reason}",
        "El {share:.0%} del tejido de esta imagen no parece hematoxilina y eosina a esta escala, sobre todo por esta razón: {reason}",
    ),
}


#: Words that agree with a count: ``[patch|patches:count]`` is "patch" where ``count`` is 1.
_AGREEING = re.compile(r"\[([^\[\]|]*)\|([^\[\]|]*):(\w+)\]")


def filled(template: str, **values: Any) -> str:
    """``template`` with its ``values`` filled in, and words in brackets, ``[one|many:name]``, chosen by the value of that name."""
    return _AGREEING.sub(lambda found: found[1] if str(values[found[3]]) == "1" else found[2], template).format(**values)


def counted(count: int, noun: str) -> str:
    """A count with its English noun: "1 patch", "13,244 patches"."""
    plural = noun + ("es" if noun.endswith(("ch", "sh", "s", "x")) else "s")
    return f"{count:,} {noun if count == 1 else plural}"


class Sentence(str):
    """A sentence in English that can be said in another language, see `translated`."""

    key: str
    values: dict[str, Any]


def say(key: str, **values: Any) -> Sentence:
    """The sentence called ``key`` with its ``values`` filled in, in English."""
    sentence = Sentence(filled(SENTENCES[key][0], **values))
    sentence.key, sentence.values = key, values
    return sentence


def translated(text: str, language: str) -> str:
    """``text`` in ``language``, one of `LANGUAGES`; a text that is no `Sentence`, and an unknown language, stay English."""
    if not isinstance(text, Sentence) or language not in LANGUAGES:
        return str(text)
    values = {name: translated(value, language) if isinstance(value, str) else value for name, value in text.values.items()}
    return filled(SENTENCES[text.key][LANGUAGES.index(language)], **values)
