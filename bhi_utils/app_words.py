"""The interface's own texts in English and in Spanish; what is said about an input stands in ``words``.

Used by the interface only. Fixed labels are translated by the browser, see `labels`, and answers by the server, see `text`.
"""

from typing import Any

from bhi_utils.words import LANGUAGES, filled

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
