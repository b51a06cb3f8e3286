<?php

declare(strict_types=1);

// A page that shows howdah at work: which PHP runs, a form, an upload and a session.
// It tells visitors about the server, so it is nothing for a public site.

function html(mixed $value): string
{
    return htmlspecialchars((string) $value, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
}

function text(mixed $value): string
{
    return is_string($value) ? trim($value) : ''; // name[]=… makes arrays
}

function bytes(int $count): string
{
    return number_format($count) . ($count === 1 ? ' byte' : ' bytes');
}

/** What became of the upload; null when there was none. */
function upload(): ?string
{
    $file = $_FILES['file'] ?? null;
    if (!is_array($file) || !is_int($file['error']) || $file['error'] === UPLOAD_ERR_NO_FILE) {
        return null;
    }
    return match ($file['error']) {
        UPLOAD_ERR_OK => sprintf('%s: %s, SHA-256 %s', $file['name'], bytes($file['size']), hash_file('sha256', $file['tmp_name'])),
        UPLOAD_ERR_INI_SIZE => $file['name'] . ' is larger than upload_max_filesize (' . ini_get('upload_max_filesize') . ')',
        UPLOAD_ERR_PARTIAL => $file['name'] . ' did not arrive completely',
        default => $file['name'] . ' could not be stored: upload error ' . $file['error'],
    };
}

session_start([
    'cookie_httponly' => true,
    'cookie_samesite' => 'Lax',
    'use_strict_mode' => true,
]);
if (isset($_POST['forget'])) {
    $_SESSION = [];
}
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
$visits = $_SESSION['visits'];
session_write_close(); // other requests of this visitor need not wait for this one

header('Content-Type: text/html; charset=utf-8');
header("Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'");

$isPost = $_SERVER['REQUEST_METHOD'] === 'POST';
$length = (int) ($_SERVER['CONTENT_LENGTH'] ?? 0);
$isTooLarge = $isPost && $length > 0 && $_POST === [] && $_FILES === [];
$name = text($_POST['name'] ?? '');
$upload = upload();
$opcache = function_exists('opcache_get_status') ? opcache_get_status(false) : false;

$facts = [
    'PHP' => PHP_VERSION . ', ' . (PHP_ZTS ? 'thread-safe (ZTS)' : 'ordinary (NTS)'),
    'SAPI' => PHP_SAPI,
    'Process' => getmypid(),
    'opcache' => $opcache ? 'on, ' . $opcache['opcache_statistics']['hits'] . ' hits' : 'off',
    'Memory' => bytes(memory_get_peak_usage()),
    'Web server' => $_SERVER['SERVER_SOFTWARE'] ?? 'unknown',
    'Request' => $_SERVER['REQUEST_METHOD'] . ' ' . ($_SERVER['REQUEST_URI'] ?? ''),
    'PATH_INFO' => $_SERVER['PATH_INFO'] ?? '',
];
?>
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Hello from howdah</title>
<style>
    :root { color-scheme: light dark; --line: #8885; --soft: #8882; --accent: #a4501a; }
    @media (prefers-color-scheme: dark) { :root { --accent: #f0a060; } }
    * { box-sizing: border-box; }
    body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 2rem 1.25rem; }
    h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
    h2 { font-size: 1.1rem; margin: 0 0 .75rem; }
    section { border: 1px solid var(--line); border-radius: .6rem; padding: 1rem 1.25rem; margin-top: 1.25rem; }
    dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.25rem; margin: 0; }
    dt { color: var(--accent); }
    dd { margin: 0; overflow-wrap: anywhere; }
    form { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; }
    input, button { font: inherit; padding: .35rem .7rem; border: 1px solid var(--line); border-radius: .4rem; max-width: 100%; }
    button { background: var(--accent); color: Canvas; border-color: transparent; cursor: pointer; }
    output { display: block; background: var(--soft); border-radius: .4rem; padding: .4rem .7rem; margin-top: .75rem; overflow-wrap: anywhere; }
    p { margin: 0 0 .75rem; }
</style>
</head>
<body>
<h1>Hello<?= $name === '' ? '' : ', ' . html($name) ?>!</h1>
<p>This page comes from PHP inside howdah.</p>
<?php if ($isTooLarge): ?>
<output><?= html('PHP dropped this form: ' . bytes($length) . ' are more than post_max_size (' . ini_get('post_max_size') . '), or it was malformed.') ?></output>
<?php endif ?>

<section>
<h2>What answered</h2>
<dl>
<?php foreach ($facts as $label => $value): ?>
    <dt><?= html($label) ?></dt><dd><?= html($value) ?></dd>
<?php endforeach ?>
</dl>
</section>

<section>
<h2>A form</h2>
<form method="post">
    <label for="name">Your name</label>
    <input id="name" name="name" value="<?= html($name) ?>" maxlength="80" autocomplete="name">
    <button>Say hello</button>
</form>
</section>

<section>
<h2>An upload</h2>
<form method="post" enctype="multipart/form-data">
    <input type="file" name="file" aria-label="File" required>
    <button>Upload</button>
</form>
<?php if ($upload !== null): ?>
<output><?= html($upload) ?></output>
<?php endif ?>
</section>

<section>
<h2>A session</h2>
<form method="post">
    <span>Pages you have seen: <strong><?= html($visits) ?></strong></span>
    <button name="forget" value="1">Forget me</button>
</form>
</section>
</body>
</html>
