"""Every sentence of the interface in English and in Spanish, and words that agree with a count.

A `Sentence` is its English text and remembers what it was made of, so that it can be said in the reader's language. `text` and `labels` are
the interface's own; `filled` and `counted` serve every page.
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


#: Key to the text in the order of `LANGUAGES`.
TEXTS: dict[str, tuple[str, str]] = {
    "title": ("Is there invasive ductal carcinoma in this tissue?", "¿Hay carcinoma ductal invasivo en este tejido?"),
    "warning": ("Research use only, not a medical device.", "Solo para investigación; no es un producto sanitario."),
    "language": ("Language", "Idioma"),
    "logout": ("Log out", "Cerrar sesión"),
    "login": (
        "This is a research tool that classifies patches of breast tissue, and no medical device. Ask whoever runs it for its name and "
        "password.",
        "Es una herramienta de investigación que clasifica parches de tejido mamario, y no es un producto sanitario. Pida el nombre y la "
        "contraseña a quien la administra.",
    ),
    # what a request is refused with
    "no_entry": (
        "The app does not answer under this name, or to pages of this origin. Whoever starts it can add a name with --allowed-host.",
        "La aplicación no responde con este nombre, ni a páginas de este origen. Quien la inicia puede añadir otro con --allowed-host.",
    ),
    "no_room": (
        "There is no room for this upload now: send less, or try again when others have finished.",
        "Ahora no hay sitio para este envío: envíe menos, o inténtelo de nuevo cuando otros hayan terminado.",
    ),
    "too_long": ("The request is too long, or broke off.", "La petición es demasiado larga, o se interrumpió."),
    "too_many_tries": (
        "There were too many wrong passwords: try again in {seconds} s.",
        "Hubo demasiadas contraseñas equivocadas: inténtelo de nuevo en {seconds} s.",
    ),
    "no_session": (
        "A region is remembered for one session only: send the same session_hash, which nobody can guess, with every request.",
        "Una región se recuerda solo para una sesión: envíe con cada petición el mismo session_hash, que nadie pueda adivinar.",
    ),
    "model": ("Model {name}", "Modelo {name}"),
    "trained_archive": ("fitted on {cases} [case|cases:cases] of the archive", "ajustado con {cases} [caso|casos:cases] del archivo"),
    "trained_phantom": (
        "fitted on {cases} [case|cases:cases] of synthetic patches, so its answers mean nothing for tissue",
        "ajustado con {cases} [caso|casos:cases] de parches sintéticos, así que sus respuestas no valen para tejido",
    ),
    "archive": ("the archive", "el archivo"),
    "phantom": (
        "synthetic patches, so its answers mean nothing for tissue",
        "parches sintéticos, así que sus respuestas no valen para tejido",
    ),
    # tabs
    "tab_patch": ("Patch", "Parche"),
    "tab_region": ("Region", "Región"),
    "tab_files": ("Files", "Archivos"),
    "tab_case": ("Case", "Caso"),
    "tab_card": ("Model", "Modelo"),
    # boxes and buttons
    "box_patch": ("Patch of 50×50 pixels: drop, choose or paste (Ctrl+V)", "Parche de 50×50 píxeles: suéltelo, elíjalo o péguelo (Ctrl+V)"),
    "box_region": (
        "Region of up to 10,000×10,000 pixels (PNG, JPEG, TIFF), about 4 µm a pixel",
        "Región de hasta 10 000×10 000 píxeles (PNG, JPEG, TIFF), unos 4 µm por píxel",
    ),
    "box_files": ("Up to 1,000 patches, or a zip of them", "Hasta 1000 parches, o un zip con ellos"),
    "cancel": ("Cancel", "Cancelar"),
    "case": ("Case", "Caso"),
    "show": ("Show the case", "Mostrar el caso"),
    "example_region": ("Try a synthetic region", "Probar una región sintética"),
    "details": ("All numbers", "Todos los números"),
    # one patch
    "examples": ("Synthetic examples (drawn, not tissue)", "Ejemplos sintéticos (dibujados, no son tejido)"),
    "example": ("Synthetic example {number}", "Ejemplo sintético {number}"),
    "empty_patch": (
        "Give a patch, or click an example: class, probability and evidence map appear here.",
        "Entregue un parche o pulse un ejemplo: aquí aparecen la clase, la probabilidad y el mapa de evidencia.",
    ),
    "no_answer": ("No answer.", "Sin respuesta."),
    "doubt": ("This does not look like a patch that the model can judge.", "Esto no parece un parche que el modelo pueda juzgar."),
    "anyway": ("Show what the model says anyway", "Mostrar lo que dice el modelo de todos modos"),
    "probability_of": ("calibrated probability of IDC+", "probabilidad calibrada de IDC+"),
    "threshold": ("threshold {value}", "umbral {value}"),
    "bar": ("Probability {p}, threshold {t}", "Probabilidad {p}, umbral {t}"),
    "above": (
        "The probability is at or above the threshold of {t}, from which a patch is called IDC+.",
        "La probabilidad alcanza el umbral de {t}, a partir del cual un parche se llama IDC+.",
    ),
    "under": (
        "The probability is under the threshold of {t}, from which a patch is called IDC+.",
        "La probabilidad está por debajo del umbral de {t}, a partir del cual un parche se llama IDC+.",
    ),
    "rule": ("How it was chosen: {rule}.", "Cómo se eligió: {rule}."),
    "rule_recall": (
        "as high as possible while at least {share} of the IDC+ patches {where} are found",
        "lo más alto posible con tal de encontrar al menos {share} de los parches IDC+ {where}",
    ),
    "rule_f1": ("the best F1 of IDC+ on the patches {where}", "el mejor F1 de IDC+ en los parches {where}"),
    "rule_youden": (
        "the highest sum of recall and specificity (Youden) on the patches {where}",
        "la mayor suma de sensibilidad y especificidad (Youden) en los parches {where}",
    ),
    "rule_cost": (
        "the lowest cost on the patches {where}, a missed IDC+ costing {times} times a false alarm",
        "el menor coste en los parches {where}, donde un IDC+ pasado por alto cuesta {times} veces una falsa alarma",
    ),
    "rule_fixed": ("fixed beforehand", "fijado de antemano"),
    "on_validation": ("of validation cases", "de los casos de validación"),
    "on_out_of_fold": (
        "of cases that the model answering had not seen (cross-validation)",
        "de casos que el modelo que contestaba no había visto (validación cruzada)",
    ),
    "on_early_stopping": (
        "of cases that served for early stopping only",
        "de casos que solo sirvieron para la parada temprana",
    ),
    "meaning": (
        "On test cases, {recall} of IDC+ patches are found, and {precision} of those called IDC+ are (95 % intervals by case).",
        "En los casos de prueba se encuentra {recall} de los parches IDC+, y lo es {precision} de los llamados IDC+ (intervalos del 95 % "
        "por caso).",
    ),
    "meaning_early": (
        "On the cases that chose it, {recall} of IDC+ patches are found, and {precision} of those called IDC+ are (95 % intervals by "
        "case); that is too favourable for new cases.",
        "En los casos con que se eligió se encuentra {recall} de los parches IDC+, y lo es {precision} de los llamados IDC+ (intervalos "
        "del 95 % por caso); para casos nuevos es demasiado favorable.",
    ),
    "patch_as_read": ("The patch as the model reads it", "El parche tal como lo lee el modelo"),
    "evidence": ("Evidence map over the patch", "Mapa de evidencia sobre el parche"),
    "opacity": ("Opacity of the map", "Opacidad del mapa"),
    "speaks": ("speaks for {label}", "habla a favor de {label}"),
    "neither": ("neither", "ninguna"),
    "adds_up": (
        "The map's mean over the patch is the model's logit, {logit}: the colours add up to the answer. The map is as coarse as the "
        "network's last layer and outlines no tumour.",
        "La media del mapa sobre el parche es el logit del modelo, {logit}: los colores suman la respuesta. El mapa es tan basto como la "
        "última capa de la red y no delimita ningún tumor.",
    ),
    "views": (
        "Turned and mirrored, the same patch gets probabilities from {low} to {high} (eight views, mean {mean}).",
        "Girado y reflejado, el mismo parche recibe probabilidades de {low} a {high} (ocho vistas, media {mean}).",
    ),
    "views_differ": (
        "They lie on both sides of the threshold, so the class depends on how the patch is turned.",
        "Quedan a ambos lados del umbral, así que la clase depende de cómo se gire el parche.",
    ),
    "views_agree": ("All of them give the same class.", "Todas dan la misma clase."),
    "views_bar": ("Probabilities of the eight views: {values}", "Probabilidades de las ocho vistas: {values}"),
    "seen": (
        "Seen in training: the model learned from exactly these pixels, or was tuned on them, so this answer says nothing about how it "
        "does on new patches.",
        "Visto en el entrenamiento: el modelo aprendió exactamente de estos píxeles, o se ajustó con ellos, así que esta respuesta no "
        "dice cómo acierta con parches nuevos.",
    ),
    "gone": ("The file did not arrive: send it again.", "El archivo no llegó: envíelo otra vez."),
    # a region
    "empty_region": (
        "Give a region: its tissue is mapped here, and the background is skipped.",
        "Entregue una región: aquí se dibuja el mapa de su tejido; el fondo se omite.",
    ),
    "reading": ("Reading the image …", "Leyendo la imagen …"),
    "progress": ("{done} of {all} [patch|patches:all]", "{done} de {all} [parche|parches:all]"),
    "cancelled": ("Cancelled; nothing was kept.", "Cancelado; no se guardó nada."),
    "share": (
        "{share} of the tissue ({above} of {all} [patch|patches:all]) is at or above {threshold}",
        "{share} del tejido ({above} de {all} [parche|parches:all]) alcanza {threshold}",
    ),
    "skipped": (
        "{count} [patch|patches:count] of background [was|were:count] skipped.",
        "Se [omitió|omitieron:count] {count} [parche|parches:count] de fondo.",
    ),
    "strange": (
        "{count} [patch does|patches do:count] not look like stained tissue at this scale: see the column in_scope of the table.",
        "{count} [parche no parece|parches no parecen:count] tejido teñido a esta escala: vea la columna in_scope de la tabla.",
    ),
    "map_label": (
        "Map of probabilities. Arrow keys move over the patches, Enter shows one.",
        "Mapa de probabilidades. Las flechas recorren los parches, Intro muestra uno.",
    ),
    "map_hint": (
        "Click a place, or focus the map and use the arrow keys and Enter, to see its patch and evidence.",
        "Pulse un lugar, o enfoque el mapa y use las flechas e Intro, para ver su parche y su evidencia.",
    ),
    "region_image": ("The region", "La región"),
    "threshold_slider": ("Threshold", "Umbral"),
    "download_map": ("Map (PNG)", "Mapa (PNG)"),
    "download_table": ("Table (CSV)", "Tabla (CSV)"),
    "place": ("Column {x}, row {y}:", "Columna {x}, fila {y}:"),
    "place_title": ("Patch at x = {x}, y = {y}", "Parche en x = {x}, y = {y}"),
    "is_glass": ("background.", "fondo."),
    "is_probability": ("probability {p}.", "probabilidad {p}."),
    "no_region": (
        "There is no map to look into: give a region first.",
        "No hay ningún mapa que mirar: entregue antes una región.",
    ),
    "no_tissue_here": ("There is only background at this place.", "En este lugar solo hay fondo."),
    "not_probability": ("A threshold is a probability between 0 and 1.", "Un umbral es una probabilidad entre 0 y 1."),
    "not_place": ("A place is x and y, two numbers of pixels.", "Un lugar es x e y, dos números de píxeles."),
    # a program's request
    "malformed": (
        "This request cannot be read: send a JSON object whose data is the list of the endpoint's inputs.",
        "Esta petición no se puede leer: envíe un objeto JSON cuyo campo data sea la lista de los datos de entrada.",
    ),
    "not_fitting": (
        "These inputs do not fit /{name}: it takes {inputs}, in this order{upload}.",
        "Estos datos no son los de /{name}: toma {inputs}, en este orden{upload}.",
    ),
    "as_uploaded": (
        ", and a file as it was uploaded (handle_file of gradio_client)",
        ", y cada archivo tal como se subió (handle_file de gradio_client)",
    ),
    # many files
    "empty_files": (
        "Give patches or a zip: the table of answers appears here, and no picture is shown.",
        "Entregue parches o un zip: aquí aparece la tabla de respuestas, sin mostrar ninguna imagen.",
    ),
    "answered": (
        "Patches answered: {count}. IDC+: {positive}, IDC−: {negative}, at the threshold {t}.",
        "Parches respondidos: {count}. IDC+: {positive}, IDC−: {negative}, con el umbral {t}.",
    ),
    "rejected": ("Files that could not be used: {count}", "Archivos que no se pudieron usar: {count}"),
    "rejected_more": ("and {count} more, see the list", "y {count} más, vea la lista"),
    "download_rejected": ("Rejected files (CSV)", "Archivos rechazados (CSV)"),
    "too_many": (
        "[This is|These are:count] {count} [file|files:count], and at most 1,000 are answered at once.",
        "[Es|Son:count] {count} [archivo|archivos:count], y se responde como máximo a 1000.",
    ),
    "no_images": (
        "There is no image in this: send patches, or a zip of them.",
        "No hay ninguna imagen aquí: envíe parches, o un zip con ellos.",
    ),
    "answers": ("Answers", "Respuestas"),
    "file": ("file", "archivo"),
    "probability": ("calibrated probability", "probabilidad calibrada"),
    "label": ("class", "clase"),
    "remark": ("remark", "observación"),
    # a case
    "empty_case": ("Choose a case: its slide is put together here.", "Elija un caso: aquí se recompone su preparación."),
    "no_case": ("There is no case {case} here.", "No hay ningún caso {case} aquí."),
    "not_case": ("A case is a whole number: /cases lists them.", "Un caso es un número entero: /cases los enumera."),
    "source": ("Data: {source}, {cases} [case|cases:cases].", "Datos: {source}, {cases} [caso|casos:cases]."),
    "synthetic": ("Synthetic: drawn, not tissue.", "Sintético: dibujado, no es tejido."),
    "in_training": (
        "The model learned from this case, or was tuned on it, so its answers here look better than they are.",
        "El modelo aprendió de este caso, o se ajustó con él, así que sus respuestas parecen aquí mejores de lo que son.",
    ),
    "case_facts": (
        "Case {case}: {patches} [patch|patches:patches], {positive} labelled IDC+. The model finds {found} of these and calls {false} "
        "[other|others:false] IDC+.",
        "Caso {case}: {patches} [parche|parches:patches], {positive} [marcado|marcados:positive] IDC+. El modelo encuentra {found} de "
        "ellos y llama IDC+ a [otro|otros:false] {false}.",
    ),
    "panel_slide": ("Tissue, put together from its patches", "Tejido, recompuesto de sus parches"),
    "panel_truth": ("Truth: orange IDC+, blue IDC−", "Verdad: naranja IDC+, azul IDC−"),
    "panel_probability": (
        "Probability: orange at or above the threshold {t}, blue under it",
        "Probabilidad: naranja desde el umbral {t}, azul por debajo",
    ),
    "panel_error": (
        "Error: orange with \\ a false alarm, blue with / a missed IDC+, grey is right",
        "Error: naranja con \\ falsa alarma, azul con / IDC+ no hallado, gris es correcto",
    ),
    # the card
    "card_missing": ("not recorded in this bundle", "no consta en este paquete"),
    "card_model": ("Model", "Modelo"),
    "card_metrics": ("Metrics", "Métricas"),
    "card_limits": ("Limits", "Límites"),
    "card_name": ("name", "nombre"),
    "card_start": ("weights began as", "pesos iniciales"),
    "card_data": ("data", "datos"),
    "card_data_value": (
        "{kind}, {cases} [case|cases:cases], {patches} [patch|patches:patches]",
        "{kind}, {cases} [caso|casos:cases], {patches} [parche|parches:patches]",
    ),
    "fitted_on": ("fitted on", "ajustado con"),
    "early_stopping_on": ("early stopping on", "parada temprana con"),
    "known_to_the_start": ("seen before by those weights", "vistos antes por esos pesos"),
    "card_cases": ("{count} [case|cases:count]", "{count} [caso|casos:count]"),
    "card_threshold": ("threshold", "umbral"),
    "card_threshold_value": (
        "{raw} on the probability, {calibrated} on the calibrated one",
        "{raw} sobre la probabilidad, {calibrated} sobre la calibrada",
    ),
    "card_rule": ("how it was chosen", "cómo se eligió"),
    "card_calibration": ("calibration", "calibración"),
    "card_hash": ("SHA-256 of the model file", "SHA-256 del archivo del modelo"),
    "card_interval": ("value (95 % interval by case)", "valor (intervalo del 95 % por caso)"),
    "card_none": (
        "This bundle holds no metrics: run notebook 06 after training, or measure it with bhi evaluate.",
        "Este paquete no contiene métricas: ejecute el cuaderno 06 tras entrenar, o mídalo con bhi evaluate.",
    ),
    "test": ("test cases", "casos de prueba"),
    "out_of_fold": ("out of fold", "validación cruzada"),
    "early_stopping": ("early-stopping cases", "casos de parada temprana"),
    "val": ("validation cases", "casos de validación"),
    "train": ("training cases", "casos de entrenamiento"),
    "note_out_of_fold": (
        "Out of fold: every case was answered by a network of the same recipe that had learned without it. Recall, precision and other "
        "counts of right answers belong to the thresholds of those networks, not to this model's.",
        "Validación cruzada: cada caso lo contestó una red de la misma receta que aprendió sin él. La sensibilidad, la precisión y los "
        "demás recuentos de aciertos corresponden a los umbrales de esas redes, no al de este modelo.",
    ),
    "note_early_stopping": (
        "Early-stopping cases: this model's own answers at its own threshold, on the cases that chose its epoch and its threshold. They "
        "are too favourable for that reason.",
        "Casos de parada temprana: respuestas de este modelo con su propio umbral, en los casos que eligieron su época y su umbral. Por "
        "eso son demasiado favorables.",
    ),
    "note_val": (
        "Validation cases: the cases that chose epoch, threshold and calibration, so their values are too favourable.",
        "Casos de validación: los que eligieron la época, el umbral y la calibración, así que sus valores son demasiado favorables.",
    ),
    "limit_scale": (
        "One patch of 50×50 pixels spans about 200 µm at 4 µm a pixel; at another scale, the answers mean nothing.",
        "Un parche de 50×50 píxeles abarca unos 200 µm a 4 µm por píxel; a otra escala las respuestas no significan nada.",
    ),
    "limit_stain": (
        "The calibration holds for cases like the validation cases. Another laboratory's stain or another share of IDC+ shifts it.",
        "La calibración vale para casos como los de validación. La tinción de otro laboratorio u otra proporción de IDC+ la desplaza.",
    ),
    "limit_scope": (
        "Inputs that are no H&E at this scale are told by colour, contrast and sharpness. What passes is not thereby tissue of the breast.",
        "Lo que no es H&E a esta escala se reconoce por color, contraste y nitidez. Lo que pasa no es por ello tejido de mama.",
    ),
    "limit_evidence": (
        "The evidence map says what moved this network, not where a tumour ends.",
        "El mapa de evidencia dice qué movió a esta red, no dónde acaba un tumor.",
    ),
}


def text(key: str, language: str, **values: Any) -> str:
    """The text called ``key`` in ``language``, English for an unknown one, with its ``values`` filled in."""
    return filled(TEXTS[key][LANGUAGES.index(language) if language in LANGUAGES else 0], **values)


def labels() -> dict[str, dict[str, str]]:
    """All texts of each language, for the browser to choose from."""
    return {language: {key: texts[number] for key, texts in TEXTS.items()} for number, language in enumerate(LANGUAGES)}


def percent(share: float, language: str, *, digits: int = 0) -> str:
    """A share as a percentage, with the language's comma or point."""
    return number(100 * share, language, digits=digits) + " %"


def probability(value: float, language: str, *, beside: float | None = None) -> str:
    """A probability with two decimals, never rounded to 0 or 1; with more where two would put it on the wrong side of ``beside``.

    Nearer than 0.0001 to that, the threshold that is shown, no digits may be enough.
    """

    def misleads(said: str) -> bool:
        return beside is not None and (float(said) >= round(beside, 4)) != (value >= beside)

    if misleads(f"{value:.2f}"):
        said = next((one for one in (f"{value:.{digits}f}" for digits in range(3, 7)) if not misleads(one)), f"{value:.6f}")
    else:
        said = "< 0.01" if value < 0.005 else "> 0.99" if value > 0.995 else f"{value:.2f}"
    return said.replace(".", ",") if language == "es" else said


def threshold_said(value: float, language: str) -> str:
    """A threshold with two to four decimals, as many as it has."""
    said = f"{value:.4f}"
    said = said[:-2] if said.endswith("00") else said.removesuffix("0")
    return said.replace(".", ",") if language == "es" else said


def number(value: float, language: str, *, digits: int = 0) -> str:
    """A number with the language's signs for thousands and decimals."""
    written = f"{value:,.{digits}f}"
    return written.translate(str.maketrans({",": "\u202f", ".": ","})) if language == "es" else written
