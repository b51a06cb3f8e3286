<?php

declare(strict_types=1);

// A small application on the whole of Symfony's framework, as the distribution packages it.

use App\Kernel;
use Symfony\Component\HttpFoundation\Request;

require '/usr/share/php/Symfony/Bundle/FrameworkBundle/autoload.php';
spl_autoload_register(static function (string $class): void {
    if (str_starts_with($class, 'App\\')) {
        require dirname(__DIR__) . '/src/' . strtr(substr($class, 4), '\\', '/') . '.php';
    }
});

$kernel = new Kernel('prod', false);
$request = Request::createFromGlobals();
$response = $kernel->handle($request);
$response->send();
$kernel->terminate($request, $response);
