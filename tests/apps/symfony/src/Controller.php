<?php

declare(strict_types=1);

namespace App;

use Symfony\Component\HttpFoundation\BinaryFileResponse;
use Symfony\Component\HttpFoundation\Cookie;
use Symfony\Component\HttpFoundation\File\UploadedFile;
use Symfony\Component\HttpFoundation\JsonResponse;
use Symfony\Component\HttpFoundation\Request;
use Symfony\Component\HttpFoundation\Response;
use Symfony\Component\HttpFoundation\ResponseHeaderBag;
use Symfony\Component\HttpFoundation\StreamedResponse;

final class Controller
{
    public function __construct(private Later $later)
    {
    }

    public function greeting(Request $request, string $name): Response
    {
        $response = new JsonResponse([
            'greeting' => "Hello, $name!",
            'query' => $request->query->all(),
            'path' => $request->getPathInfo(),
            'accepts' => $request->getAcceptableContentTypes(),
            'cookie' => $request->cookies->get('greeted'),
        ]);
        $response->headers->setCookie(Cookie::create('greeted', $name));
        return $response;
    }

    public function stream(): Response
    {
        $response = new StreamedResponse(static function (): void {
            while (ob_get_level() > 0) {
                ob_end_clean();
            }
            for ($number = 1; $number <= 4; ++$number) {
                echo "piece $number\n";
                flush();
                usleep(400_000);
            }
        });
        $response->headers->set('Content-Type', 'text/plain');
        $response->headers->set('X-Accel-Buffering', 'no');
        return $response;
    }

    public function download(Request $request): Response
    {
        // Without the type, Symfony would want one more component to guess it.
        $headers = ['Content-Type' => 'application/octet-stream'];
        $response = new BinaryFileResponse(dirname(__DIR__) . '/download.bin', Response::HTTP_OK, $headers);
        $response->setContentDisposition(ResponseHeaderBag::DISPOSITION_ATTACHMENT, 'naïve.bin', 'naive.bin');
        $response->isNotModified($request);
        return $response;
    }

    public function visits(Request $request): Response
    {
        $session = $request->getSession();
        $session->set('visits', $session->get('visits', 0) + 1);
        return new JsonResponse(['visits' => $session->get('visits')]);
    }

    public function store(Request $request, string $id): Response
    {
        $body = $request->getContent();
        return new JsonResponse([
            'id' => $id,
            'type' => $request->headers->get('Content-Type'),
            'length' => strlen($body),
            'sha256' => hash('sha256', $body),
            'form' => $request->request->all(),
        ], Response::HTTP_CREATED);
    }

    public function upload(Request $request): Response
    {
        $file = $request->files->get('file');
        if (!$file instanceof UploadedFile || !$file->isValid()) {
            return new JsonResponse(['error' => $file?->getErrorMessage()], Response::HTTP_BAD_REQUEST);
        }
        $stored = $file->move($_SERVER['APP_DATA_DIR'], bin2hex(random_bytes(8)));
        return new JsonResponse([
            'title' => $request->request->get('title'),
            'name' => $file->getClientOriginalName(),
            'length' => $stored->getSize(),
            'sha256' => hash_file('sha256', $stored->getPathname()),
        ]);
    }

    public function later(string $name): Response
    {
        $this->later->file = $_SERVER['APP_DATA_DIR'] . '/' . basename($name);
        return new JsonResponse(['accepted' => $name], Response::HTTP_ACCEPTED);
    }

    public function broken(): Response
    {
        throw new \LogicException('This part is broken.');
    }
}
